//! The items of the process, in HAProxy's order. What rlb does not have (SSL, compression, peers, pools) is 0,
//! as in an HAProxy that does not use it.

use super::Kind::{self, Counter, Gauge};
use super::{Facts, Item};
use crate::stats::columns::Value;
use crate::stats::process::{Phase, VERSION, bytes_out, threads};
use std::sync::atomic::Ordering::Relaxed;

/// Release date of this version, in HAProxy's format.
pub const RELEASED: &str = "2026/11/22";

/// The items, in order.
#[rustfmt::skip] // a table
pub static ITEMS: [Item; 80] = [
    item(0, "Name", "POSV:str", (None, "Product name"), |_| t("HAProxy")),
    item(1, "Version", "POSV:str", (None, "Product version"), |_| t(VERSION)),
    item(2, "Release_date", "POSV:str", (None, "Date of latest source code update"), |_| t(RELEASED)),
    item(3, "Nbthread", "CGSV:u32", (Some(("nbthread", Gauge)), "Number of started threads (global.nbthread)"), |f| n(threads(f.snapshot))),
    item(4, "Nbproc", "CGSV:u32", (Some(("nbproc", Gauge)), "Number of started worker processes (historical, always 1)"), |_| n(1u32)),
    item(5, "Process_num", "KGPV:u32", (Some(("relative_process_id", Gauge)), "Relative worker process number (1)"), |_| n(1u32)),
    item(6, "Pid", "SGPV:u32", (None, "This worker process identifier for the system"), |f| n(f.process.pid)),
    item(7, "Uptime", "MDPV:str", (None, "How long ago this worker process was started (days+hours+minutes+seconds)"), |f| Value::Text(f.uptime_text().into())),
    item(8, "Uptime_sec", "MDPV:u32", (Some(("uptime_seconds", Gauge)), "How long ago this worker process was started (seconds)"), |f| n(f.uptime())),
    item(9, "Memmax_MB", "CLPV:u32", (None, "Worker process's hard limit on memory usage in MB (-m on command line)"), |_| n(0u32)),
    item(10, "PoolAlloc_MB", "MGPV:u32", (None, "Amount of memory allocated in pools (in MB)"), |_| n(0u32)),
    item(11, "PoolUsed_MB", "MGPV:u32", (None, "Amount of pool memory currently used (in MB)"), |_| n(0u32)),
    item(12, "PoolFailed", "MCPV:u32", (Some(("pool_failures_total", Counter)), "Number of failed pool allocations since this worker was started"), |_| n(0u32)),
    item(13, "Ulimit-n", "CLPV:u32", (Some(("max_fds", Gauge)), "Hard limit on the number of per-process file descriptors"), |f| n(f.process.nofile)),
    item(14, "Maxsock", "CLPV:u32", (Some(("max_sockets", Gauge)), "Hard limit on the number of per-process sockets"), |f| n(f.process.nofile)),
    item(15, "Maxconn", "CLPV:u32", (Some(("max_connections", Gauge)), "Hard limit on the number of per-process connections (configured or imposed by Ulimit-n)"), |f| n(f.snapshot.maxconn)),
    item(16, "Hard_maxconn", "CLPV:u32", (Some(("hard_max_connections", Gauge)), "Hard limit on the number of per-process connections (imposed by Memmax_MB or Ulimit-n)"), |f| n(f.snapshot.hard_maxconn)),
    item(17, "CurrConns", "MGPV:u32", (Some(("current_connections", Gauge)), "Current number of connections on this worker process"), |f| n(f.connections())),
    item(18, "CumConns", "MCPV:u32", (Some(("connections_total", Counter)), "Total number of connections on this worker process since started"), |f| n(f.connections_total())),
    item(19, "CumReq", "MCPV:u32", (Some(("requests_total", Counter)), "Total number of requests on this worker process since started"), |f| n(f.requests_total())),
    item(20, "MaxSslConns", "MMPV:u32", (Some(("max_ssl_connections", Gauge)), "Hard limit on the number of per-process SSL endpoints (front+back), 0=unlimited"), |_| n(0u32)),
    item(21, "CurrSslConns", "MGPV:u32", (Some(("current_ssl_connections", Gauge)), "Current number of SSL endpoints on this worker process (front+back)"), |_| n(0u32)),
    item(22, "CumSslConns", "MCPV:u32", (Some(("ssl_connections_total", Counter)), "Total number of SSL endpoints on this worker process since started (front+back)"), |_| n(0u32)),
    item(23, "Maxpipes", "CLPV:u32", (Some(("max_pipes", Gauge)), "Hard limit on the number of pipes for splicing, 0=unlimited"), |f| n(f.snapshot.global.pipes_max * threads(f.snapshot))),
    item(24, "PipesUsed", "MGPV:u32", (Some(("pipes_used_total", Counter)), "Current number of pipes in use in this worker process"), |f| n(f.pipes_used())),
    item(25, "PipesFree", "MGPV:u32", (Some(("pipes_free_total", Counter)), "Current number of allocated and available pipes in this worker process"), |f| n(f.pipes_free())),
    item(26, "ConnRate", "MRPV:u32", (Some(("current_connection_rate", Gauge)), "Number of front connections created on this worker process over the last second"), |f| n(f.rate())),
    item(27, "ConnRateLimit", "CLPV:u32", (Some(("limit_connection_rate", Gauge)), "Hard limit for ConnRate (global.maxconnrate)"), |f| n(f.snapshot.rate_limits.connections)),
    item(28, "MaxConnRate", "MMPV:u32", (Some(("max_connection_rate", Gauge)), "Highest ConnRate reached on this worker process since started (in connections per second)"), |f| n(f.rate_max())),
    item(29, "SessRate", "MRPV:u32", (Some(("current_session_rate", Gauge)), "Number of sessions created on this worker process over the last second"), |f| n(f.rate())),
    item(30, "SessRateLimit", "CLPV:u32", (Some(("limit_session_rate", Gauge)), "Hard limit for SessRate (global.maxsessrate)"), |f| n(f.snapshot.rate_limits.sessions)),
    item(31, "MaxSessRate", "MRPV:u32", (Some(("max_session_rate", Gauge)), "Highest SessRate reached on this worker process since started (in sessions per second)"), |f| n(f.rate_max())),
    item(32, "SslRate", "MRPV:u32", (Some(("current_ssl_rate", Gauge)), "Number of SSL connections created on this worker process over the last second"), |_| n(0u32)),
    item(33, "SslRateLimit", "CLPV:u32", (Some(("limit_ssl_rate", Gauge)), "Hard limit for SslRate (global.maxsslrate)"), |_| n(0u32)),
    item(34, "MaxSslRate", "MMPV:u32", (Some(("max_ssl_rate", Gauge)), "Highest SslRate reached on this worker process since started (in connections per second)"), |_| n(0u32)),
    item(35, "SslFrontendKeyRate", "MGPV:u32", (Some(("current_frontend_ssl_key_rate", Gauge)), "Number of SSL keys created on frontends in this worker process over the last second"), |_| n(0u32)),
    item(36, "SslFrontendMaxKeyRate", "MMPV:u32", (Some(("max_frontend_ssl_key_rate", Gauge)), "Highest SslFrontendKeyRate reached on this worker process since started (in SSL keys per second)"), |_| n(0u32)),
    item(37, "SslFrontendSessionReuse_pct", "MGPV:u32", (Some(("frontend_ssl_reuse", Gauge)), "Percent of frontend SSL connections which did not require a new key"), |_| n(0u32)),
    item(38, "SslBackendKeyRate", "MRPV:u32", (Some(("current_backend_ssl_key_rate", Gauge)), "Number of SSL keys created on backends in this worker process over the last second"), |_| n(0u32)),
    item(39, "SslBackendMaxKeyRate", "MMPV:u32", (Some(("max_backend_ssl_key_rate", Gauge)), "Highest SslBackendKeyRate reached on this worker process since started (in SSL keys per second)"), |_| n(0u32)),
    item(40, "SslCacheLookups", "MCPV:u32", (Some(("ssl_cache_lookups_total", Counter)), "Total number of SSL session ID lookups in the SSL session cache on this worker since started"), |_| n(0u32)),
    item(41, "SslCacheMisses", "MCPV:u32", (Some(("ssl_cache_misses_total", Counter)), "Total number of SSL session ID lookups that didn't find a session in the SSL session cache on this worker since started"), |_| n(0u32)),
    item(42, "CompressBpsIn", "MRPV:u32", (Some(("http_comp_bytes_in_total", Counter)), "Number of bytes submitted to the HTTP compressor in this worker process over the last second"), |_| n(0u32)),
    item(43, "CompressBpsOut", "MRPV:u32", (Some(("http_comp_bytes_out_total", Counter)), "Number of bytes emitted by the HTTP compressor in this worker process over the last second"), |_| n(0u32)),
    item(44, "CompressBpsRateLim", "CLPV:u32", (Some(("limit_http_comp", Gauge)), "Limit of CompressBpsOut beyond which HTTP compression is automatically disabled"), |_| n(0u32)),
    item(47, "Tasks", "MGPV:u32", (Some(("current_tasks", Gauge)), "Total number of tasks in the current worker process (active + sleeping)"), |f| n(f.tasks())),
    item(48, "Run_queue", "MGPV:u32", (Some(("current_run_queue", Gauge)), "Total number of active tasks+tasklets in the current worker process"), |_| n(0u32)),
    item(49, "Idle_pct", "MaPV:u32", (Some(("idle_time_percent", Gauge)), "Percentage of last second spent waiting in the current worker thread"), |f| n(f.process.idle_percent())),
    item(50, "node", "COSV:str", (Some(("node", Gauge)), "Node name (global.node)"), |f| t(f.node())),
    item(51, "description", "COSV:str", (Some(("description", Gauge)), "Node description (global.description)"), |f| t(f.description())),
    item(52, "Stopping", "MGPV:u32", (Some(("stopping", Gauge)), "1 if the worker process is currently stopping, otherwise zero"), |f| n(u32::from(f.process.phase() == Phase::Stopping))),
    item(53, "Jobs", "MGPV:u32", (Some(("jobs", Gauge)), "Current number of active jobs on the current worker process (frontend connections, master connections, listeners)"), |f| n(f.connections() + f.listeners())),
    item(54, "Unstoppable Jobs", "MGPV:u32", (Some(("unstoppable_jobs", Gauge)), "Current number of unstoppable jobs on the current worker process (master connections)"), |_| n(0u32)),
    item(55, "Listeners", "MGPV:u32", (Some(("listeners", Gauge)), "Current number of active listeners on the current worker process"), |f| n(f.listeners())),
    item(56, "ActivePeers", "MGPV:u32", (Some(("active_peers", Gauge)), "Current number of verified active peers connections on the current worker process"), |_| n(0u32)),
    item(57, "ConnectedPeers", "MGPV:u32", (Some(("connected_peers", Gauge)), "Current number of peers having passed the connection step on the current worker process"), |_| n(0u32)),
    item(58, "DroppedLogs", "MGPV:u32", (Some(("dropped_logs_total", Counter)), "Total number of dropped logs for current worker process since started"), |f| n(f.snapshot.global.dropped_logs.load(Relaxed))),
    item(59, "BusyPolling", "MGPV:u32", (Some(("busy_polling_enabled", Gauge)), "1 if busy-polling is currently in use on the worker process, otherwise zero (config.busy-polling)"), |_| n(0u32)),
    item(60, "FailedResolutions", "MGPV:u32", (None, "Total number of failed DNS resolutions in current worker process since started"), |_| n(0u32)),
    item(61, "TotalBytesOut", "MGPV:u64", (Some(("bytes_out_total", Counter)), "Total number of bytes emitted by current worker process since started"), |f| n(bytes_out(f.snapshot))),
    item(62, "TotalSplicedBytesOut", "MGPV:u64", (Some(("spliced_bytes_out_total", Counter)), "Total number of bytes emitted by current worker process through a kernel pipe since started"), |f| n(f.snapshot.global.traffic.sum(|shard| &shard.spliced_out))),
    item(63, "BytesOutRate", "MRPV:u64", (Some(("bytes_out_rate", Gauge)), "Number of bytes emitted by current worker process over the last second"), |f| n(f.process.bytes_out_rate())),
    item(64, "DebugCommandsIssued", "MGPV:u32", (None, "Number of debug commands issued on this process (anything > 0 is unsafe)"), |_| n(0u32)),
    item(65, "CumRecvLogs", "MCPV:u32", (Some(("recv_logs_total", Counter)), "Total number of log messages received by log-forwarding listeners on this worker process since started"), |_| n(0u32)),
    item(66, "Build info", "POSV:str", (Some(("build_info", Gauge)), "Build info"), |_| t(VERSION)),
    item(67, "Memmax_bytes", "CLPV:u32", (Some(("max_memory_bytes", Gauge)), "Worker process's hard limit on memory usage in bytes (-m on command line)"), |_| n(0u32)),
    item(68, "PoolAlloc_bytes", "MGPV:u64", (Some(("pool_allocated_bytes", Gauge)), "Amount of memory allocated in pools (in bytes)"), |_| n(0u32)),
    item(69, "PoolUsed_bytes", "MGPV:u64", (Some(("pool_used_bytes", Gauge)), "Amount of pool memory currently used (in bytes)"), |_| n(0u32)),
    item(70, "Start_time_sec", "MDPV:u32", (Some(("start_time_seconds", Gauge)), "Start time in seconds"), |f| n(f.process.started)),
    item(71, "Tainted", "SGPV:str", (None, "Experimental features used"), |_| t("0")),
    item(72, "TotalWarnings", "MCPV:u32", (None, "Total warnings issued"), |_| n(0u32)),
    item(73, "MaxconnReached", "MCPV:u32", (None, "Number of times an accepted connection resulted in Maxconn being reached"), |f| n(f.snapshot.global.traffic.sum(|t| &t.paused))),
    item(74, "BootTime_ms", "MDPV:u32", (None, "How long ago it took to parse and process the config before being ready (milliseconds)"), |_| n(0u32)),
    item(75, "Niced_tasks", "MGPV:u32", (None, "Total number of active tasks+tasklets in the current worker process (Run_queue) that are niced"), |_| n(0u32)),
    item(76, "CurrStreams", "MGPV:u64", (None, "Current number of streams on this worker process"), |f| n(f.connections())),
    item(77, "CumStreams", "MGPV:u64", (None, "Total number of streams created on this worker process since started"), |f| n(f.requests_total())),
    item(78, "BlockedTrafficWarnings", "MGPV:u32", (None, "Total number of warnings issued about traffic being blocked by too slow a task"), |_| n(0u32)),
    item(79, "PatternsAdded", "MGPV:u64", (None, "Total number of patterns added (acl/map entries)"), |_| n(0u32)),
    item(80, "PatternsFreed", "MGPV:u64", (None, "Total number of patterns freed (acl/map entries)"), |_| n(0u32)),
    item(81, "NbThreadGroups", "CGSV:u32", (Some(("nb_thread_groups", Gauge)), "Number of started thread groups (global.thread-groups)"), |_| n(1u32)),
];

const fn item(
    position: u32,
    name: &'static str,
    typed: &'static str,
    (metric, description): (Option<(&'static str, Kind)>, &'static str),
    value: for<'a> fn(&'a Facts<'_>) -> Value<'a>,
) -> Item {
    Item {
        position,
        name,
        typed,
        metric,
        description,
        value,
    }
}

fn n<'a>(number: impl Into<u64>) -> Value<'a> {
    Value::Number(number.into())
}

fn t(text: &str) -> Value<'_> {
    Value::Text(text.into())
}
