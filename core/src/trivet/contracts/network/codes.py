"""The error codes of the network service."""

from trivet.contracts.errors import code

NO_ADDRESS = code("network.no_address", 409, "No address of the subnet is free")
ADDRESS_TAKEN = code("network.address_taken", 409, "The address is in use")
SUBNET_OVERLAP = code("network.subnet_overlap", 409, "The subnet overlaps another network's")
VNI_TAKEN = code("network.vni_taken", 409, "The VNI is in use")
NOT_ON_NODE = code("network.not_on_node", 409, "The network is not on that node")
