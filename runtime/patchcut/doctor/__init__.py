"""What this machine has, what would run here, and why nothing faster does: `patchcut doctor`.

What may be broken is looked at in processes of its own: one that is killed, or does not answer, is a line of
the report. Nothing is fetched or written, no camera is opened unless asked for, and no path names its user.
"""

from patchcut.doctor.examination import Examination, examine
from patchcut.doctor.remedies import Remedy

__all__ = ["Examination", "Remedy", "examine"]
