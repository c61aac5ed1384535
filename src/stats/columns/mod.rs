//! *The* table of the columns of the statistics: HAProxy 3.x's 119 in its order. Runs on the admin
//! thread; read by every encoder.
//!
//! Invariants: the order never changes and new columns of rlb's own come after these (consumers read
//! by position); a value that does not apply to a row is [`Value::Absent`], never 0 (consumers take
//! a 0 for a limit or divide by it). Which row has which value is compared with recorded output of
//! HAProxy in the tests.

use super::requests::Requests;
use super::rows::{Kind, Row};
use crate::live::CheckReport;
use crate::state::Server;
use std::borrow::Cow;

/// The value of a column in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Does not apply to this row.
    Absent,
    /// A count, gauge, limit, number of seconds or milliseconds.
    Number(u64),
    /// A number that may be negative (`lastsess`).
    Signed(i64),
    /// Text.
    Text(Cow<'a, str>),
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name in the header.
    pub name: &'static str,
    /// Sum of the kinds of row that have it ([`F`] and so on).
    rows: u8,
    value: for<'a> fn(&'a Row<'_>) -> Value<'a>,
}

impl Column {
    /// Its value in `row`.
    pub fn value<'a>(&self, row: &'a Row<'_>) -> Value<'a> {
        let kinds = match (row.kind(), row.is_http()) {
            (Kind::Frontend, false) => F,
            (Kind::Frontend, true) => F | FH,
            (Kind::Backend, false) => B,
            (Kind::Backend, true) => B | BH,
            (Kind::Server, _) => S,
        };
        if self.rows & kinds == 0 {
            return Value::Absent;
        }
        (self.value)(row)
    }
}

/// Frontends.
const F: u8 = 1;
/// Backends.
const B: u8 = 2;
/// Servers.
const S: u8 = 4;
/// Frontends in HTTP mode (the stats proxy), for what those in TCP mode do not have.
const FH: u8 = 8;
/// Backends in HTTP mode (the stats proxy).
const BH: u8 = 16;

/// The columns, in order.
#[rustfmt::skip]
pub static COLUMNS: [Column; 119] = [
    column("pxname", F|B|S, |row| t(row.proxy())),
    column("svname", F|B|S, |row| t(row.service())),
    zero("qcur", B|S),
    zero("qmax", B|S),
    column("scur", F|B|S, |row| u(row.active())),
    column("smax", F|B|S, |row| u(row.max(|t| &t.smax))),
    column("slim", F|B|S, |row| some(row.session_limit())),
    column("stot", F|B|S, |row| n(row.count(|t| &t.stot))),
    column("bin", F|B|S, |row| n(row.bytes().0)),
    column("bout", F|B|S, |row| n(row.bytes().1)),
    zero("dreq", F|B),
    zero("dresp", F|B|S),
    column("ereq", F, |row| n(row.count(|t| &t.ereq))),
    column("econ", B|S, |row| n(row.count(|t| &t.econ))),
    column("eresp", B|S, |row| n(row.count(|t| &t.eresp))),
    column("wretr", B|S, |row| n(row.count(|t| &t.wretr))),
    column("wredis", B|S, |row| n(row.count(|t| &t.wredis))),
    column("status", F|B|S, |row| Value::Text(row.status())),
    column("weight", B|S, |row| u(row.weight())),
    column("act", B|S, |row| u(row.usable().0)),
    column("bck", B|S, |row| u(row.usable().1)),
    column("chkfail", S, |row| checked(row, row.count(|t| &t.chkfail))),
    column("chkdown", B|S, chkdown),
    column("lastchg", B|S, |row| n(row.last_change())),
    column("downtime", B|S, |row| row.downtime().map_or(Value::Absent, n)),
    never("qlimit"),
    column("pid", F|B|S, |_| n(1)),
    column("iid", F|B|S, |row| u(row.ids().0)),
    column("sid", F|B|S, |row| u(row.ids().1)),
    never("throttle"),
    column("lbtot", B|S, |row| n(row.count(|t| &t.lbtot))),
    never("tracked"),
    column("type", F|B|S, |row| n(row.kind() as u64)),
    column("rate", F|B|S, |row| u(row.rate(|t| &t.rate))),
    zero("rate_lim", F),
    column("rate_max", F|B|S, |row| u(row.rate_max())),
    column("check_status", S, check_status),
    never("check_code"),
    column("check_duration", S, check_duration),
    column("hrsp_1xx", FH|BH, |row| answered(row, 1)),
    column("hrsp_2xx", FH|BH, |row| answered(row, 2)),
    column("hrsp_3xx", FH|BH, |row| answered(row, 3)),
    column("hrsp_4xx", FH|BH, |row| answered(row, 4)),
    column("hrsp_5xx", FH|BH, |row| answered(row, 5)),
    column("hrsp_other", FH|BH, |row| answered(row, 0)),
    never("hanafail"),
    column("req_rate", F, |row| requests(row, |r, now| r.per_second(now).into())),
    column("req_rate_max", F, |row| requests(row, |r, _| r.rate_max().into())),
    column("req_tot", F|BH, |row| requests(row, |r, _| r.total.get())),
    column("cli_abrt", B|S, |row| n(row.count(|t| &t.cli_abrt))),
    column("srv_abrt", B|S, |row| n(row.count(|t| &t.srv_abrt))),
    zero("comp_in", F|B),
    zero("comp_out", F|B),
    zero("comp_byp", F|B),
    zero("comp_rsp", F|B),
    column("lastsess", B|S, |row| Value::Signed(row.last_session())),
    column("last_chk", S, |row| check(row, |c| Value::Text(c.info.as_str().into()))),
    never("last_agt"),
    zero("qtime", B|S),
    column("ctime", B|S, |row| n(row.average(|t| &t.ctime))),
    zero("rtime", B|S),
    column("ttime", B|S, |row| n(row.average(|t| &t.ttime))),
    never("agent_status"),
    never("agent_code"),
    never("agent_duration"),
    column("check_desc", S, |row| check(row, |c| Value::Text(c.status.description().into()))),
    never("agent_desc"),
    column("check_rise", S, |row| health(row, |s| s.rules().rise)),
    column("check_fall", S, |row| health(row, |s| s.rules().fall)),
    column("check_health", S, |row| health(row, |s| s.status.health)),
    never("agent_rise"),
    never("agent_fall"),
    never("agent_health"),
    column("addr", S, |row| row.address().map_or(Value::Absent, Value::Text)),
    never("cookie"),
    column("mode", F|B|S, |row| t(if row.is_http() { "http" } else { "tcp" })),
    column("algo", B, |row| row.algorithm().map_or(Value::Absent, t)),
    column("conn_rate", F, |row| u(row.rate(|t| &t.conn_rate))),
    column("conn_rate_max", F, |row| u(row.conn_rate_max())),
    column("conn_tot", F, |row| n(row.count(|t| &t.conn_tot))),
    column("intercepted", FH, |row| requests(row, |r, _| r.total.get())),
    zero("dcon", F),
    zero("dses", F),
    zero("wrew", F|B|S),
    column("connect", B|S, |row| n(row.count(|t| &t.connect))),
    zero("reuse", B|S),
    zero("cache_lookups", FH|BH),
    zero("cache_hits", FH|BH),
    zero("srv_icur", S),
    never("src_ilim"),
    zero("qtime_max", B|S),
    column("ctime_max", B|S, |row| u(row.max(|t| &t.ctime_max))),
    zero("rtime_max", B|S),
    column("ttime_max", B|S, |row| u(row.max(|t| &t.ttime_max))),
    column("eint", F|B|S, |row| n(row.count(|t| &t.eint))),
    zero("idle_conn_cur", S),
    zero("safe_conn_cur", S),
    zero("used_conn_cur", S),
    zero("need_conn_est", S),
    column("uweight", B|S, |row| u(row.weight())),
    column("agg_server_status", B, |row| u(row.usable().0)),
    zero("agg_server_check_status", B),
    zero("agg_check_status", B),
    zero("srid", S),
    column("sess_other", F, |row| n(if row.is_http() { 0 } else { row.count(|t| &t.stot) })),
    column("h1sess", F, |row| n(if row.is_http() { row.count(|t| &t.stot) } else { 0 })),
    zero("h2sess", F),
    zero("h3sess", F),
    zero("req_other", F),
    column("h1req", F, |row| requests(row, |r, _| r.total.get())),
    zero("h2req", F),
    zero("h3req", F),
    never("proto"),
    zero("priv_idle_cur", S),
    column("reqbin", F|B|S, |row| n(row.bytes().0)),
    column("reqbout", F|B|S, |row| n(row.bytes().0)),
    column("resbin", F|B|S, |row| n(row.bytes().1)),
    column("resbout", F|B|S, |row| n(row.bytes().1)),
    zero("cache_hint_hits", FH|BH),
];

const fn column(
    name: &'static str,
    rows: u8,
    value: for<'a> fn(&'a Row<'_>) -> Value<'a>,
) -> Column {
    Column { name, rows, value }
}

/// What rlb cannot have counted anything of (denials, queues, reuse, compression): 0 where HAProxy
/// prints a number.
const fn zero(name: &'static str, rows: u8) -> Column {
    column(name, rows, |_| Value::Number(0))
}

/// What no row has: a limit that cannot be set, a feature that does not exist.
const fn never(name: &'static str) -> Column {
    column(name, 0, |_| Value::Absent)
}

fn n<'a>(number: u64) -> Value<'a> {
    Value::Number(number)
}

fn u<'a>(number: u32) -> Value<'a> {
    Value::Number(number.into())
}

fn some<'a>(number: Option<u32>) -> Value<'a> {
    number.map_or(Value::Absent, u)
}

fn t(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

/// `number`, if the server has a check, in maintenance too.
fn checked<'a>(row: &Row<'_>, number: u64) -> Value<'a> {
    let has_check = row
        .server()
        .is_some_and(|server| server.spec.check.is_some());
    if has_check { n(number) } else { Value::Absent }
}

fn chkdown<'a>(row: &Row<'_>) -> Value<'a> {
    let count = row.count(|t| &t.chkdown);
    match row.kind() {
        Kind::Server => checked(row, count),
        _ => n(count),
    }
}

/// A column of the last check, where one is to be shown.
fn check<'a>(row: &'a Row<'_>, value: impl Fn(&'a CheckReport) -> Value<'a>) -> Value<'a> {
    row.check().map_or(Value::Absent, value)
}

/// `* ` before the status while a check runs.
fn check_status<'a>(row: &'a Row<'_>) -> Value<'a> {
    check(row, |report| {
        let code = report.status.code();
        if report.in_progress {
            Value::Text(format!("* {code}").into())
        } else {
            t(code)
        }
    })
}

/// Milliseconds; none before the first result.
fn check_duration<'a>(row: &Row<'_>) -> Value<'a> {
    let duration = row.check().and_then(|report| report.duration);
    duration.map_or(Value::Absent, |time| {
        n(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    })
}

fn health<'a>(row: &Row<'_>, value: impl Fn(&Server) -> u32) -> Value<'a> {
    match (row.check(), row.server()) {
        (Some(_), Some(server)) => u(value(server)),
        _ => Value::Absent,
    }
}

/// A count of requests: rlb has them on the frontend half of the stats proxy, and answers each
/// itself.
fn requests<'a>(row: &Row<'_>, value: impl Fn(&Requests, u64) -> u64) -> Value<'a> {
    if row.is_http() && row.kind() == Kind::Frontend {
        n(value(row.requests, row.now_ms))
    } else {
        n(0)
    }
}

fn answered<'a>(row: &Row<'_>, digit: u16) -> Value<'a> {
    requests(row, |requests, _| requests.answered(digit))
}

#[cfg(test)]
mod tests;
