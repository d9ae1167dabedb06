# What ClusterShell makes of a groups.conf: its default source, and every group of every source with
# its hosts, as JSON.
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
