//! The control thread: the one writer of snapshots.
