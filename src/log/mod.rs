//! The log thread and the formats of its lines.
