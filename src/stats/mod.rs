//! The statistics: one table of columns, rows made from a snapshot, encoders.
