//! The metrics of frontends, backends and servers: HAProxy's names, helps and types, and the column of each.
//! Their order is that of the columns.

use super::source::Source::{
    self, CheckStates, CheckStatus, Code, Column, Http, Limit, Millis, Responses, ServerStates,
    Status,
};
use crate::stats::info::Kind::{self, Counter, Gauge};
use crate::stats::row;

/// One metric of one or more kinds of row.
#[derive(Debug)]
pub(super) struct Family {
    /// Its name after `haproxy_frontend_` and so on.
    pub(super) name: &'static str,
    rows: u8,
    pub(super) kind: Kind,
    pub(super) source: Source,
    pub(super) help: &'static str,
}

impl Family {
    /// A metric of servers that only rlb has.
    pub(super) const fn of_servers(kind: Kind, source: Source, help: &'static str) -> Self {
        family("", S, kind, source, help)
    }

    /// A metric of backends that only rlb has.
    pub(super) const fn of_backends(kind: Kind, source: Source, help: &'static str) -> Self {
        family("", B, kind, source, help)
    }

    /// Whether rows of `kind` have this metric.
    pub(super) fn is_of(&self, kind: row::Kind) -> bool {
        let bit = match kind {
            row::Kind::Frontend => F,
            row::Kind::Backend => B,
            row::Kind::Server => S,
        };
        self.rows & bit != 0
    }
}

/// Frontends.
const F: u8 = 1;
/// Backends.
const B: u8 = 2;
/// Servers.
const S: u8 = 4;

/// The metrics, in order.
#[rustfmt::skip] // a table
pub(super) static FAMILIES: [Family; 79] = [
    family("current_queue", B|S, Gauge, Column("qcur"), "Number of current queued connections"),
    family("max_queue", B|S, Gauge, Column("qmax"), "Highest value of queued connections encountered since process started"),
    family("current_sessions", F|B|S, Gauge, Column("scur"), "Number of current sessions on the frontend, backend or server"),
    family("max_sessions", F|B|S, Gauge, Column("smax"), "Highest value of current sessions encountered since process started"),
    family("limit_sessions", F|B|S, Gauge, Limit("slim"), "Frontend/listener/server's maxconn, backend's fullconn"),
    family("sessions_total", F|B|S, Counter, Column("stot"), "Total number of sessions since process started"),
    family("bytes_in_total", F|B|S, Counter, Column("bin"), "Total number of request bytes since process started"),
    family("bytes_out_total", F|B|S, Counter, Column("bout"), "Total number of response bytes since process started"),
    family("requests_denied_total", F|B, Counter, Column("dreq"), "Total number of denied requests since process started"),
    family("responses_denied_total", F|B|S, Counter, Column("dresp"), "Total number of denied responses since process started"),
    family("request_errors_total", F, Counter, Column("ereq"), "Total number of invalid requests since process started"),
    family("connection_errors_total", B|S, Counter, Column("econ"), "Total number of failed connections to server since the worker process started"),
    family("response_errors_total", B|S, Counter, Column("eresp"), "Total number of invalid responses since the worker process started"),
    family("retry_warnings_total", B|S, Counter, Column("wretr"), "Total number of server connection retries since the worker process started"),
    family("redispatch_warnings_total", B|S, Counter, Column("wredis"), "Total number of server redispatches due to connection failures since the worker process started"),
    family("status", F|B|S, Gauge, Status, "Current status of the service, per state label value."),
    family("weight", B|S, Gauge, Column("weight"), "Server's effective weight, or sum of active servers' effective weights for a backend"),
    family("active_servers", B, Gauge, Column("act"), "Total number of active UP servers with a non-zero weight"),
    family("active", S, Gauge, Column("act"), "Total number of active UP servers with a non-zero weight"),
    family("backup_servers", B, Gauge, Column("bck"), "Total number of backup UP servers with a non-zero weight"),
    family("backup", S, Gauge, Column("bck"), "Total number of backup UP servers with a non-zero weight"),
    family("check_failures_total", S, Counter, Column("chkfail"), "Total number of failed individual health checks per server/backend, since the worker process started"),
    family("check_up_down_total", B|S, Counter, Column("chkdown"), "Total number of failed checks causing UP to DOWN server transitions, per server/backend, since the worker process started"),
    family("check_last_change_seconds", B|S, Gauge, Column("lastchg"), "How long ago the last server state changed, in seconds"),
    family("downtime_seconds_total", B|S, Counter, Column("downtime"), "Total time spent in DOWN state, for server or backend"),
    family("queue_limit", S, Gauge, Limit("qlimit"), "Limit on the number of connections in queue, for servers only (maxqueue argument)"),
    family("current_throttle", S, Gauge, Limit("throttle"), "Throttling ratio applied to a server's maxconn and weight during the slowstart period (0 to 100%)"),
    family("loadbalanced_total", B|S, Counter, Column("lbtot"), "Total number of requests routed by load balancing since the worker process started (ignores queue pop and stickiness)"),
    family("current_session_rate", F|B|S, Gauge, Column("rate"), "Total number of sessions processed by this object over the last second (sessions for listeners/frontends, requests for backends/servers)"),
    family("limit_session_rate", F, Gauge, Column("rate_lim"), "Limit on the number of sessions accepted in a second (frontend only, 'rate-limit sessions' setting)"),
    family("max_session_rate", F|B|S, Gauge, Column("rate_max"), "Highest value of sessions per second observed since the worker process started"),
    family("check_status", S, Gauge, CheckStatus, "Status of last health check, per state label value."),
    family("check_code", S, Gauge, Code, "layer5-7 code, if available of the last health check."),
    family("check_duration_seconds", S, Gauge, Millis("check_duration"), "Total duration of the latest server health check, in seconds."),
    family("http_responses_total", F, Counter, Responses, "Total number of HTTP responses with status 100-199 returned by this object since the worker process started"),
    family("http_requests_rate_max", F, Gauge, Http("req_rate_max"), "Highest value of http requests observed since the worker process started"),
    family("http_requests_total", F, Counter, Http("req_tot"), "Total number of HTTP requests processed by this object since the worker process started"),
    family("client_aborts_total", B|S, Counter, Column("cli_abrt"), "Total number of requests or connections aborted by the client since the worker process started"),
    family("server_aborts_total", B|S, Counter, Column("srv_abrt"), "Total number of requests or connections aborted by the server since the worker process started"),
    family("http_comp_bytes_in_total", F, Counter, Http("comp_in"), "Total number of bytes submitted to the HTTP compressor for this object since the worker process started"),
    family("http_comp_bytes_out_total", F, Counter, Http("comp_out"), "Total number of bytes emitted by the HTTP compressor for this object since the worker process started"),
    family("http_comp_bytes_bypassed_total", F, Counter, Http("comp_byp"), "Total number of bytes that bypassed HTTP compression for this object since the worker process started (CPU/memory/bandwidth limitation)"),
    family("http_comp_responses_total", F, Counter, Http("comp_rsp"), "Total number of HTTP responses that were compressed for this object since the worker process started"),
    family("last_session_seconds", B|S, Gauge, Column("lastsess"), "How long ago some traffic was seen on this object on this worker process, in seconds"),
    family("queue_time_average_seconds", B|S, Gauge, Millis("qtime"), "Avg. queue time for last 1024 successful connections."),
    family("connect_time_average_seconds", B|S, Gauge, Millis("ctime"), "Avg. connect time for last 1024 successful connections."),
    family("response_time_average_seconds", B|S, Gauge, Millis("rtime"), "Avg. response time for last 1024 successful connections."),
    family("total_time_average_seconds", B|S, Gauge, Millis("ttime"), "Avg. total time for last 1024 successful connections."),
    family("connections_rate_max", F, Gauge, Column("conn_rate_max"), "Highest value of connections per second observed since the worker process started"),
    family("connections_total", F, Counter, Column("conn_tot"), "Total number of new connections accepted on this frontend since the worker process started"),
    family("intercepted_requests_total", F, Counter, Http("intercepted"), "Total number of HTTP requests intercepted on the frontend (redirects/stats/services) since the worker process started"),
    family("denied_connections_total", F, Counter, Column("dcon"), "Total number of incoming connections blocked on a listener/frontend by a tcp-request connection rule since the worker process started"),
    family("denied_sessions_total", F, Counter, Column("dses"), "Total number of incoming sessions blocked on a listener/frontend by a tcp-request connection rule since the worker process started"),
    family("failed_header_rewriting_total", F|B|S, Counter, Column("wrew"), "Total number of failed HTTP header rewrites since the worker process started"),
    family("connection_attempts_total", B|S, Counter, Column("connect"), "Total number of outgoing connection attempts on this backend/server since the worker process started"),
    family("connection_reuses_total", B|S, Counter, Column("reuse"), "Total number of reused connection on this backend/server since the worker process started"),
    family("http_cache_lookups_total", F, Counter, Http("cache_lookups"), "Total number of HTTP requests looked up in the cache on this frontend/backend since the worker process started"),
    family("http_cache_hits_total", F, Counter, Http("cache_hits"), "Total number of HTTP requests not found in the cache on this frontend/backend since the worker process started"),
    family("idle_connections_current", S, Gauge, Column("srv_icur"), "Current number of idle connections available for reuse on this server"),
    family("idle_connections_limit", S, Gauge, Limit("src_ilim"), "Limit on the number of available idle connections on this server (server 'pool_max_conn' directive)"),
    family("max_queue_time_seconds", B|S, Gauge, Millis("qtime_max"), "Maximum observed time spent in the queue"),
    family("max_connect_time_seconds", B|S, Gauge, Millis("ctime_max"), "Maximum observed time spent waiting for a connection to complete"),
    family("max_response_time_seconds", B|S, Gauge, Millis("rtime_max"), "Maximum observed time spent waiting for a server response"),
    family("max_total_time_seconds", B|S, Gauge, Millis("ttime_max"), "Maximum observed total request+response time (request+queue+connect+response+processing)"),
    family("internal_errors_total", F|B|S, Counter, Column("eint"), "Total number of internal errors since process started"),
    family("unsafe_idle_connections_current", S, Gauge, Column("idle_conn_cur"), "Current number of unsafe idle connections"),
    family("safe_idle_connections_current", S, Gauge, Column("safe_conn_cur"), "Current number of safe idle connections"),
    family("used_connections_current", S, Gauge, Column("used_conn_cur"), "Current number of connections in use"),
    family("need_connections_current", S, Gauge, Column("need_conn_est"), "Estimated needed number of connections"),
    family("uweight", B|S, Gauge, Column("uweight"), "Server's user weight, or sum of active servers' user weights for a backend"),
    family("agg_server_status", B, Gauge, ServerStates, "Backend's aggregated gauge of servers' status"),
    family("agg_server_check_status", B, Gauge, ServerStates, "[DEPRECATED] Backend's aggregated gauge of servers' status"),
    family("agg_check_status", B, Gauge, CheckStates, "Backend's aggregated gauge of servers' state check status"),
    family("private_idle_connections_current", S, Gauge, Column("priv_idle_cur"), "Current number of private idle connections"),
    family("req_bytes_in_total", F|B|S, Counter, Column("reqbin"), "Total number of request bytes received since process started"),
    family("req_bytes_out_total", F|B|S, Counter, Column("reqbout"), "Total number of request bytes sent since process started"),
    family("res_bytes_in_total", F|B|S, Counter, Column("resbin"), "Total number of response bytes received since process started"),
    family("res_bytes_out_total", F|B|S, Counter, Column("resbout"), "Total number of response bytes sent since process started"),
    family("http_cache_hint_hits_total", F, Counter, Http("cache_hint_hits"), "Total number of HTTP requests for which a 103 Early Hints response was emitted from the cache on this frontend/backend since the worker process started"),
];

const fn family(
    name: &'static str,
    rows: u8,
    kind: Kind,
    source: Source,
    help: &'static str,
) -> Family {
    Family {
        name,
        rows,
        kind,
        source,
        help,
    }
}
