//! What gauges and queues are made of. The model checker (`tests/queue_model.rs`) compiles those files with its own
//! module of this name.

pub(super) use std::sync::atomic::{AtomicU32, Ordering};
pub(super) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stands between a change of a gauge and a read of another one. Both are `SeqCst`, so there is nothing to do. loom takes
/// `SeqCst` for acquire and release alone; there it is a fence.
pub(super) fn keep_order() {}
