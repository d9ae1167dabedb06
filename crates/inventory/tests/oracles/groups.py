# Prints a groups.conf as ClusterShell reads it: its default source, and the hosts of every group of
# every source, as JSON.
import json
import sys

from ClusterShell.NodeSet import NodeSet
from ClusterShell.NodeUtils import GroupResolverConfig

resolver = GroupResolverConfig([sys.argv[1]])
sources = {
    source: {
        group: sorted(NodeSet(f"@{source}:{group}", resolver=resolver))
        for group in resolver.grouplist(source)
    }
    for source in resolver.sources()
    if source not in sys.argv[2:]
}
print(json.dumps({"default": resolver.default_source_name, "sources": sources}))
