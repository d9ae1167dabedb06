# Prints inventories as Ansible reads them: for each file a line of JSON with the hosts of each
# group and the variables of each host.
import json
import sys

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager

# The variables that every host has, independent of the inventory.
MAGIC = {
    "inventory_file",
    "inventory_dir",
    "inventory_hostname",
    "inventory_hostname_short",
    "group_names",
    "groups",
    "omit",
}
MAGIC |= {
    "playbook_dir",
    "ansible_playbook_python",
    "ansible_config_file",
    "ansible_facts",
    "ansible_version",
}

loader = DataLoader()
for path in sys.argv[1:]:
    inventory = InventoryManager(loader=loader, sources=[path])
    manager = VariableManager(loader=loader, inventory=inventory)
    hosts = {}
    for host in inventory.get_hosts():
        variables = manager.get_vars(host=host, include_hostvars=False)
        hosts[host.name] = {name: value for name, value in variables.items() if name not in MAGIC}
    print(json.dumps({"groups": inventory.get_groups_dict(), "hosts": hosts}))
