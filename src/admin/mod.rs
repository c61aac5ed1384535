//! The admin thread: the stats listener.
