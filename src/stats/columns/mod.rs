//! The table of the columns of the statistics: the 119 columns of HAProxy 3.x in its order. Runs on the admin
//! thread; every encoder reads it.
//!
//! Invariants: the order never changes, and rlb's own columns come after these, because consumers read by
//! position. A value that does not apply to a row is [`Value::Absent`], never 0, because consumers take 0 for a
//! limit or divide by it. Tests compare which row has which value with recorded output of HAProxy.

use super::requests::Requests;
use super::row::{Kind, Row};
use crate::live::timing::millis;
use crate::live::{CheckReport, CheckStatus};
use crate::state::Server;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

/// The value of a column in a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Does not apply to this row.
    Absent,
    /// A count, gauge, limit, number of seconds or milliseconds.
    Number(u64),
    /// A number that may be negative (`lastsess`).
    Signed(i64),
    /// A decimal fraction.
    Fraction(f64),
    /// Text.
    Text(Cow<'a, str>),
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name in the header.
    pub name: &'static str,
    /// Its description in typed output: letters for origin, nature, scope and persistence, and a type, as
    /// HAProxy's `MGPV:u32`.
    typed: &'static str,
    /// The kinds of row that have it, as a sum of [`F`] and so on.
    rows: u8,
    value: for<'a> fn(&'a Row<'_>) -> Value<'a>,
}

impl Column {
    /// The letters and the type in rows of `kind`. As in HAProxy, they differ between the sums of a backend and
    /// the role of a server.
    pub fn typed(&self, kind: Kind) -> (&'static str, &'static str) {
        let typed = match (self.name, kind) {
            ("act" | "bck" | "rate_max", Kind::Backend) => "MGPV:u32",
            _ => self.typed,
        };
        let (letters, kind) = typed.split_at(4);
        (letters, &kind[1..])
    }

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
/// Frontends in HTTP mode (the stats proxy), for columns that those in TCP mode do not have.
const FH: u8 = 8;
/// Backends in HTTP mode (the stats proxy).
const BH: u8 = 16;

/// The columns, in order.
#[rustfmt::skip] // a table
pub static COLUMNS: [Column; 119] = [
    column("pxname", "KNSV:str", F|B|S, |row| t(row.proxy())),
    column("svname", "KNSV:str", F|B|S, |row| t(row.service())),
    column("qcur", "MGPV:u32", B|S, |row| u(row.queued())),
    column("qmax", "MMPV:u32", B|S, |row| u(row.max(|t| &t.qmax))),
    column("scur", "MGPV:u32", F|B|S, |row| u(row.active())),
    column("smax", "MMPV:u32", F|B|S, |row| u(row.max(|t| &t.smax))),
    column("slim", "CLPV:u32", F|B|S, |row| some(row.session_limit())),
    column("stot", "MCPP:u64", F|B|S, |row| n(row.count(|t| &t.stot))),
    column("bin", "MCPP:u64", F|B|S, |row| n(row.bytes().0)),
    column("bout", "MCPP:u64", F|B|S, |row| n(row.bytes().1)),
    zero("dreq", "MCPP:u64", F|B),
    zero("dresp", "MCPP:u64", F|B|S),
    column("ereq", "MCPP:u64", F, |row| n(row.count(|t| &t.ereq))),
    column("econ", "MCPP:u64", B|S, |row| n(row.count(|t| &t.econ))),
    column("eresp", "MCPP:u64", B|S, |row| n(row.count(|t| &t.eresp))),
    column("wretr", "MCPP:u64", B|S, |row| n(row.count(|t| &t.wretr))),
    column("wredis", "MCPP:u64", B|S, |row| n(row.count(|t| &t.wredis))),
    column("status", "SGPV:str", F|B|S, |row| Value::Text(row.status())),
    column("weight", "MaPV:u32", B|S, |row| u(row.weight())),
    column("act", "SGPV:u32", B|S, |row| u(row.usable().0)),
    column("bck", "SGPV:u32", B|S, |row| u(row.usable().1)),
    column("chkfail", "MCPP:u64", S, |row| checked(row, row.count(|t| &t.chkfail))),
    column("chkdown", "MCPP:u64", B|S, chkdown),
    column("lastchg", "MAPP:u32", B|S, |row| n(row.last_change())),
    column("downtime", "MCPV:u32", B|S, |row| row.downtime().map_or(Value::Absent, n)),
    column("qlimit", "CGSV:u32", S, |row| some(row.queue_limit())),
    column("pid", "KGPV:u32", F|B|S, |_| n(1)),
    column("iid", "KGSV:u32", F|B|S, |row| u(row.ids().0)),
    column("sid", "KGSV:u32", F|B|S, |row| u(row.ids().1)),
    column("throttle", "MaPV:u32", S, |row| some(row.throttle())),
    column("lbtot", "MCPP:u64", B|S, |row| n(row.count(|t| &t.lbtot))),
    never("tracked", "CNSV:str"),
    column("type", "CGSV:u32", F|B|S, |row| n(row.kind() as u64)),
    column("rate", "MRPP:u32", F|B|S, |row| u(row.rate(|t| &t.rate))),
    column("rate_lim", "CLPV:u32", F, |row| u(row.rate_limit())),
    column("rate_max", "MMPV:u32", F|B|S, |row| u(row.rate_max())),
    column("check_status", "MOPV:str", S, check_status),
    column("check_code", "MOPV:u32", S, check_code),
    column("check_duration", "MDPV:u64", S, check_duration),
    column("hrsp_1xx", "MCPP:u64", FH|BH, |row| answered(row, 1)),
    column("hrsp_2xx", "MCPP:u64", FH|BH, |row| answered(row, 2)),
    column("hrsp_3xx", "MCPP:u64", FH|BH, |row| answered(row, 3)),
    column("hrsp_4xx", "MCPP:u64", FH|BH, |row| answered(row, 4)),
    column("hrsp_5xx", "MCPP:u64", FH|BH, |row| answered(row, 5)),
    column("hrsp_other", "MCPP:u64", FH|BH, |row| answered(row, 0)),
    column("hanafail", "MCPP:u64", S, hanafail),
    column("req_rate", "MRPP:u32", F, |row| requests(row, |r, now| r.per_second(now).into())),
    column("req_rate_max", "MMPV:u32", F, |row| requests(row, |r, _| r.rate_max().into())),
    column("req_tot", "MCPP:u64", F|BH, |row| requests(row, |r, _| r.total.get())),
    column("cli_abrt", "MCPP:u64", B|S, |row| n(row.count(|t| &t.cli_abrt))),
    column("srv_abrt", "MCPP:u64", B|S, |row| n(row.count(|t| &t.srv_abrt))),
    zero("comp_in", "MCPP:u64", F|B),
    zero("comp_out", "MCPP:u64", F|B),
    zero("comp_byp", "MCPP:u64", F|B),
    zero("comp_rsp", "MCPP:u64", F|B),
    column("lastsess", "MAPP:s32", B|S, |row| Value::Signed(row.last_session())),
    column("last_chk", "MOPV:str", S, |row| check(row, |c| Value::Text(c.info.as_str().into()))),
    never("last_agt", "MOPV:str"),
    column("qtime", "MaPV:u32", B|S, |row| n(row.average(|t| &t.qtime))),
    column("ctime", "MaPV:u32", B|S, |row| n(row.average(|t| &t.ctime))),
    zero("rtime", "MaPV:u32", B|S),
    column("ttime", "MaPV:u32", B|S, |row| n(row.average(|t| &t.ttime))),
    never("agent_status", "MOPV:str"),
    never("agent_code", "MOPV:u32"),
    never("agent_duration", "MDPV:u64"),
    column("check_desc", "MOPV:str", S, |row| check(row, |c| Value::Text(c.status.description().into()))),
    never("agent_desc", "MOPV:str"),
    column("check_rise", "CGSV:u32", S, |row| health(row, |s| s.rules().rise)),
    column("check_fall", "CGSV:u32", S, |row| health(row, |s| s.rules().fall)),
    column("check_health", "CGSV:u32", S, |row| health(row, |s| s.status.health)),
    never("agent_rise", "CGSV:u32"),
    never("agent_fall", "CGSV:u32"),
    never("agent_health", "CGSV:u32"),
    column("addr", "CGSV:str", S, |row| legend(row, row.address().map_or(Value::Absent, Value::Text))),
    never("cookie", "CNSV:str"),
    column("mode", "CGSV:str", F|B|S, |row| t(if row.is_http() { "http" } else { "tcp" })),
    column("algo", "CGSV:str", B, |row| legend(row, row.algorithm().map_or(Value::Absent, t))),
    column("conn_rate", "MRPP:u32", F, |row| u(row.rate(|t| &t.conn_rate))),
    column("conn_rate_max", "MMPV:u32", F, |row| u(row.conn_rate_max())),
    column("conn_tot", "MCPP:u64", F, |row| n(row.count(|t| &t.conn_tot))),
    column("intercepted", "MCPP:u64", FH, |row| requests(row, |r, _| r.total.get())),
    zero("dcon", "MCPP:u64", F),
    zero("dses", "MCPP:u64", F),
    zero("wrew", "MCPP:u64", F|B|S),
    column("connect", "MCPP:u64", B|S, |row| n(row.count(|t| &t.connect))),
    zero("reuse", "MCPP:u64", B|S),
    zero("cache_lookups", "MCPP:u64", FH|BH),
    zero("cache_hits", "MCPP:u64", FH|BH),
    zero("srv_icur", "MGPV:u32", S),
    never("src_ilim", "CLPV:u32"),
    column("qtime_max", "MMPV:u32", B|S, |row| u(row.max(|t| &t.qtime_max))),
    column("ctime_max", "MMPV:u32", B|S, |row| u(row.max(|t| &t.ctime_max))),
    zero("rtime_max", "MMPV:u32", B|S),
    column("ttime_max", "MMPV:u32", B|S, |row| u(row.max(|t| &t.ttime_max))),
    column("eint", "MCPP:u64", F|B|S, |row| n(row.count(|t| &t.eint))),
    zero("idle_conn_cur", "MGPV:u32", S),
    zero("safe_conn_cur", "MGPV:u32", S),
    zero("used_conn_cur", "MGPV:u32", S),
    zero("need_conn_est", "MGPV:u32", S),
    column("uweight", "MaPV:u32", B|S, |row| u(row.user_weight())),
    zero("agg_server_status", "MGPV:u32", B),
    zero("agg_server_check_status", "MGPV:u32", B),
    zero("agg_check_status", "MGPV:u32", B),
    zero("srid", "MCPV:u32", S),
    column("sess_other", "MCPV:u64", F, |row| n(if row.is_http() { 0 } else { row.count(|t| &t.stot) })),
    column("h1sess", "MCPP:u64", F, |row| n(if row.is_http() { row.count(|t| &t.stot) } else { 0 })),
    zero("h2sess", "MCPP:u64", F),
    zero("h3sess", "MCPP:u64", F),
    zero("req_other", "MCPP:u64", F),
    column("h1req", "MCPP:u64", F, |row| requests(row, |r, _| r.total.get())),
    zero("h2req", "MCPP:u64", F),
    zero("h3req", "MCPP:u64", F),
    never("proto", "CGSV:str"),
    zero("priv_idle_cur", "MGPV:u32", S),
    column("reqbin", "MCPP:u64", F|B|S, |row| n(row.bytes().0)),
    column("reqbout", "MCPP:u64", F|B|S, |row| n(row.bytes().0)),
    column("resbin", "MCPP:u64", F|B|S, |row| n(row.bytes().1)),
    column("resbout", "MCPP:u64", F|B|S, |row| n(row.bytes().1)),
    zero("cache_hint_hits", "MCPP:u64", FH|BH),
];

/// The column called `name`.
///
/// # Panics
/// When there is none; the names are constants in the source.
pub fn named(name: &str) -> &'static Column {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Column>> =
        LazyLock::new(|| COLUMNS.iter().map(|column| (column.name, column)).collect());
    BY_NAME[name]
}

const fn column(
    name: &'static str,
    typed: &'static str,
    rows: u8,
    value: for<'a> fn(&'a Row<'_>) -> Value<'a>,
) -> Column {
    Column {
        name,
        typed,
        rows,
        value,
    }
}

/// What rlb does not have (denials, queues, reuse, compression): 0 where HAProxy prints a number.
const fn zero(name: &'static str, typed: &'static str, rows: u8) -> Column {
    column(name, typed, rows, |_| Value::Number(0))
}

/// What no row has: a limit that cannot be set, or a feature that does not exist.
const fn never(name: &'static str, typed: &'static str) -> Column {
    column(name, typed, 0, |_| Value::Absent)
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

/// `value`, if addresses and algorithms are shown.
fn legend<'a>(row: &Row<'_>, value: Value<'a>) -> Value<'a> {
    if row.legends() { value } else { Value::Absent }
}

/// `number`, if the server has a check, also in maintenance.
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

/// As in HAProxy shown where `observe` is set, with a check or without.
fn hanafail<'a>(row: &Row<'_>) -> Value<'a> {
    let observed = row.server().is_some_and(|server| server.spec.observe);
    if observed {
        n(row.count(|t| &t.hanafail))
    } else {
        Value::Absent
    }
}

/// A value of the last check, if it is shown.
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

/// The number that the answer had, if there is one.
fn check_code<'a>(row: &Row<'_>) -> Value<'a> {
    let code = row.check().and_then(CheckReport::code);
    code.map_or(Value::Absent, |code| n(code.into()))
}

/// Milliseconds; absent before the first result. As in HAProxy 0 where failed connects have counted as a check.
fn check_duration<'a>(row: &Row<'_>) -> Value<'a> {
    let duration = row.check().and_then(|report| match report.status {
        CheckStatus::HealthAnalyze => Some(Duration::ZERO),
        _ => report.duration,
    });
    duration.map_or(Value::Absent, |time| n(millis(time)))
}

fn health<'a>(row: &Row<'_>, value: impl Fn(&Server) -> u32) -> Value<'a> {
    match (row.check(), row.server()) {
        (Some(_), Some(server)) => u(value(server)),
        _ => Value::Absent,
    }
}

/// A number of requests: only the frontend of the stats proxy has them, and rlb answers each itself.
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
