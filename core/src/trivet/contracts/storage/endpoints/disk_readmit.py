"""Take a disk back into use: it is judged anew from now on."""

from trivet.contracts.endpoint import action
from trivet.contracts.storage.disk import DISK

ENDPOINT = action(DISK, "readmit", "Take a disk back that was isolated, by hand or by itself.")
