//! The configurations of the subjects. What a [`Setting`] does not change is the same in all of them.

use super::setting::{PLAIN, Setting};
use super::{LOG_PORT, NGINX_STREAM, PROXY_PORT, SERVER_PORTS};

/// What HAProxy's settings differ in: lines of `global` and of `defaults`.
pub type Tuning = (&'static str, &'static str);

/// Servers with their numbers and ports.
fn servers(setting: &Setting) -> impl Iterator<Item = (u16, u16)> {
    (0..setting.servers).map(|index| {
        let port = SERVER_PORTS[usize::from(index) % SERVER_PORTS.len()];
        (SERVER_PORTS[0] + index, port)
    })
}

/// A part of a configuration, if it has that part.
fn when(has: bool, part: String) -> String {
    if has { part } else { String::new() }
}

/// rlb's.
pub fn rlb(cores: usize, setting: &Setting) -> String {
    let plain = *setting == PLAIN;
    let limited = setting.server_maxconn > 0;
    let limit = when(limited, format!(", maxconn = {}", setting.server_maxconn));
    let send = when(setting.proxy_header, ", send-proxy = \"v2\"".into());
    let servers: String = servers(setting)
        .map(|(number, port)| {
            format!("  {{ name = \"s{number}\", address = \"127.0.0.1:{port}\"{limit}{send} }},\n")
        })
        .collect();
    let socket = when(
        !plain,
        "[runtime-api]\nsocket = \"@DIR@/admin.sock\"\n".into(),
    );
    let log = when(
        setting.logs,
        format!("[[log.target]]\nto = \"udp:127.0.0.1:{LOG_PORT}\"\n"),
    );
    let check = if setting.checks { "\"tcp\"" } else { "false" };
    let queue = when(limited, ", queue = \"10m\"".into());
    let balance = when(
        !plain,
        format!("balance = \"{}\"\n", setting.balance.of_rlb()),
    );
    let address = format!("\"127.0.0.1:{PROXY_PORT}\"");
    let bind = if setting.proxy_header {
        format!("{{ address = {address}, accept-proxy = \"required\" }}")
    } else {
        address
    };
    format!(
        "[global]\nthreads = {cores}\nmaxconn = {maxconn}\n{socket}{log}\
         [defaults]\ncheck = {check}\n\
         timeout = {{ client = \"10m\", server = \"10m\", connect = \"5s\"{queue} }}\n\
         [[listen]]\nname = \"load\"\nbind = {bind}\n{balance}\
         servers = [\n{servers}]\n",
        maxconn = setting.maxconn,
    )
}

/// HAProxy's.
pub fn haproxy(cores: usize, (global, defaults): Tuning, setting: &Setting) -> String {
    let limited = setting.server_maxconn > 0;
    let check = when(setting.checks, " check".into());
    let limit = when(limited, format!(" maxconn {}", setting.server_maxconn));
    let accept = when(setting.proxy_header, " accept-proxy".into());
    let send = when(setting.proxy_header, " send-proxy-v2".into());
    let servers: String = servers(setting)
        .map(|(number, port)| format!("  server s{number} 127.0.0.1:{port}{check}{limit}{send}\n"))
        .collect();
    let socket = when(
        *setting != PLAIN,
        "  stats socket @DIR@/admin.sock\n".into(),
    );
    let log = when(setting.logs, format!("  log 127.0.0.1:{LOG_PORT} local0\n"));
    let lines = when(setting.logs, "  log global\n  option tcplog\n".into());
    let queue = when(limited, "  timeout queue 10m\n".into());
    let tcp_check = when(setting.checks, "  option tcp-check\n".into());
    format!(
        "global\n  maxconn {maxconn}\n  nbthread {cores}\n{log}{socket}{global}\
         defaults\n  mode tcp\n{lines}  timeout connect 5s\n  \
         timeout client 10m\n  timeout server 10m\n{queue}{defaults}\
         listen load\n  bind 127.0.0.1:{PROXY_PORT}{accept}\n  balance {balance}\n\
         {tcp_check}{servers}",
        maxconn = setting.maxconn,
        balance = setting.balance.of_haproxy(),
    )
}

/// nginx'.
pub fn nginx(cores: usize) -> String {
    let servers: String = SERVER_PORTS
        .iter()
        .map(|port| format!("    server 127.0.0.1:{port};\n"))
        .collect();
    format!(
        "daemon off;\npid @DIR@/pid;\nerror_log stderr error;\nworker_processes {cores};\n\
         worker_rlimit_nofile 20000;\nload_module {NGINX_STREAM};\n\
         events {{ worker_connections 19500; }}\n\
         stream {{\n  log_format line '$remote_addr $bytes_sent $status';\n  \
         access_log syslog:server=127.0.0.1:{LOG_PORT} line;\n  \
         upstream load {{\n{servers}  }}\n  \
         server {{\n    listen 127.0.0.1:{PROXY_PORT} reuseport backlog=4096;\n    \
         proxy_pass load;\n    proxy_half_close on;\n    tcp_nodelay on;\n  }}\n}}\n"
    )
}
