"""The error codes of the storage service."""

from trivet.contracts.errors import code

NO_SPACE = code("volume.no_space", 409, "There is not enough space")
SHRINK = code("volume.shrink", 422, "A volume can't become smaller")
ATTACHED = code("volume.attached_elsewhere", 409, "The volume is attached by another holder")
TOO_FEW_NODES = code("volume.too_few_nodes", 422, "There are fewer nodes than replicas")
DISK_NOT_BLANK = code("disk.not_blank", 409, "The disk holds something")
DISK_TAKEN = code("disk.taken", 409, "The disk belongs to a pool")
POOL_FULL = code("pool.full", 409, "The pool is full")
NOT_READY = code("volume.not_ready", 409, "The volume is not ready yet")
AT_STAKE = code("node.at_stake", 409, "Volumes would be unavailable without this node")
