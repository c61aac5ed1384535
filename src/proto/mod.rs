//! Protocols that rlb reads or writes itself. Pure: bytes in, values out, and back.

pub mod proxy;
