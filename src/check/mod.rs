//! Health checks: one task per server on the control thread.
