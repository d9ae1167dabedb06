# Evaluates node sets with ClusterShell: for each line of standard input a line with the folded set,
# a tab, and its names.
import sys

from ClusterShell.NodeSet import NodeSet, NodeSetException

for line in sys.stdin:
    try:
        nodes = NodeSet(line.rstrip("\n"))
        print(nodes, " ".join(nodes), sep="\t")
    except NodeSetException as error:
        print("error", error, sep="\t")
