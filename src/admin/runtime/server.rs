//! `set server … addr`, `check-addr`, `check-port`, `health` and `name`, and `enable` and `disable health`: what a server is
//! and how it is checked. Admin thread; the texts are HAProxy's.

use super::names::NO_SERVER;
use super::reply::Reply;
use super::set::leading_number;
use super::{CommandContext, names, set};
use crate::config::address;
use crate::config::model::{Check, ServerAddress, ServerPort};
use crate::config::units;
use crate::state::{AdminRequest, Endpoint, Forced, Interface, RuntimeChange, Server};
use std::fmt::Write;
use std::net::IpAddr;

/// `set server <bk>/<srv> state|weight …`.
pub(super) async fn set_server(context: &CommandContext, args: &[&str]) -> Reply {
    let found = match set::find(context, args) {
        Ok(found) => found,
        Err(problem) => return Reply::error(problem),
    };
    let server = &*found.1;
    match args.get(1..).unwrap_or_default() {
        ["state", wish, ..] => match *wish {
            "ready" => set::state_of(context, server, AdminRequest::Ready).await,
            "drain" => set::state_of(context, server, AdminRequest::Drain).await,
            "maint" => set::state_of(context, server, AdminRequest::Maint).await,
            _ => Reply::error(EXPECTED),
        },
        ["state"] => Reply::error(EXPECTED),
        ["weight", weight, ..] => set::weight_of(context, &found, weight).await,
        ["weight"] => Reply::error(set::NO_WEIGHT),
        ["name", name, ..] if !name.is_empty() => rename(context, args[0], name).await,
        ["name", ..] => Reply::error("set server <b>/<s> name requires a new name.\n"),
        ["health", rest @ ..] => health(context, server, rest).await,
        ["addr", rest @ ..] => address(context, server, rest).await,
        ["check-addr"] => Reply::error(
            "set server <b>/<s> check-addr requires an address and optionally a port.\n",
        ),
        ["check-addr", address, rest @ ..] => {
            let port = match rest {
                ["port", port, ..] => Some(*port),
                _ => None,
            };
            check_target(context, server, (Some(*address), port)).await
        }
        ["check-port"] => Reply::error("set server <b>/<s> check-port requires a port.\n"),
        ["check-port", port, ..] => check_target(context, server, (None, Some(*port))).await,
        other => missing(other),
    }
}

/// What rlb's servers do not have, answered as HAProxy answers for a server without it.
fn missing(args: &[&str]) -> Reply {
    match args {
        ["agent" | "agent-send", ..] => {
            Reply::error("agent checks are not enabled on this server.\n")
        }
        ["agent-addr"] => Reply::error(
            "set server <b>/<s> agent-addr requires an address and optionally a port.\n",
        ),
        ["agent-port"] => Reply::error("set server <b>/<s> agent-port requires a port.\n"),
        ["agent-addr" | "agent-port", ..] => {
            Reply::warning("agent checks are not enabled on this server\n")
        }
        ["fqdn"] => Reply::error("set server <b>/<s> fqdn requires a FQDN.\n"),
        ["fqdn", ..] => {
            Reply::error("set server <b>/<s> fqdn failed because no resolution is configured.\n")
        }
        ["ssl", ..] => Reply::notice("server ssl setting not supported.\n"),
        _ => Reply::error(
            "usage: set server <backend>/<server> addr | agent | agent-addr | agent-port | \
             agent-send | check-addr | check-port | fqdn | health | name | ssl | state | weight\n",
        ),
    }
}

const EXPECTED: &str = "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n";

/// Longest name that an operator gives a server, in bytes, as in HAProxy.
const NAME_MAX: usize = 63;

/// `set server … name <name>`.
async fn rename(context: &CommandContext, path: &str, name: &str) -> Reply {
    let find = || names::server(&context.shared.snapshot.load(), Some(path));
    let (backend, server) = match find() {
        Ok(found) => found,
        Err(problem) => return Reply::error(problem),
    };
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.-".contains(&byte);
    if !name.bytes().all(is_valid) {
        return Reply::error("Server name contains invalid characters.\n");
    }
    if name.len() > NAME_MAX {
        return Reply::error("Server name too long.\n");
    }
    if let Err(problem) = units::server_name(name) {
        return Reply::error(format!("{}.\n", problem.message));
    }
    if !server.status.admin.is_maint() {
        return Reply::error(
            "Server must be in maintenance mode to be renamed (set server <b>/<s> state maint).\n",
        );
    }
    if *server.spec.name == *name {
        return Reply::notice(RENAMED);
    }
    if let ServerAddress::Name(host, _) = &server.spec.address {
        return Reply::error(format!(
            "'{host}' is a name: a server that is renamed needs an address.\n"
        ));
    }
    let (of, from) = (&*backend.spec.name, &*server.spec.name);
    let change = RuntimeChange::RenameServer(server.live.uid, name.into());
    match set::change(context, change).await {
        Reply::Done => {
            tracing::info!("Server {of}/{name} renamed from '{from}'.");
            Reply::notice(RENAMED)
        }
        Reply::Error(text) if text == NO_SERVER => match find() {
            Ok((backend, _)) if backend.has_name(name) => {
                Reply::error("A server with the same name already exists in this backend.\n")
            }
            _ => Reply::Error(text),
        },
        other => other,
    }
}

const RENAMED: &str = "Server name updated.\n";

/// `set server … health up|stopping|down`.
async fn health(context: &CommandContext, server: &Server, args: &[&str]) -> Reply {
    let to = match args.first() {
        Some(&"up") => Forced::Up,
        Some(&"stopping") => Forced::Stopping,
        Some(&"down") => Forced::Down,
        _ => {
            let text = "'set server <srv> health' expects 'up', 'stopping', or 'down'.\n";
            return Reply::error(text);
        }
    };
    set::change(
        context,
        RuntimeChange::Health(server.live.uid, to, Interface::Cli),
    )
    .await
}

/// `enable health` and `disable health`.
pub(super) async fn check(context: &CommandContext, args: &[&str], enable: bool) -> Reply {
    let found = names::server_to_change(&context.shared.snapshot.load(), args.first().copied());
    let (backend, server) = match found {
        Ok(found) => found,
        Err(problem) => return Reply::error(problem),
    };
    let configured = backend.written(&server).and_then(|one| one.check.clone());
    let check = match (enable, configured) {
        (true, None) => {
            let text = "Health check was not configured on this server, cannot enable.\n";
            return Reply::error(text);
        }
        (true, Some(_)) if server.spec.check.is_some() => return Reply::Done,
        (true, check) => check,
        (false, _) => None,
    };
    set::change(context, RuntimeChange::Check(server.live.uid, check)).await
}

/// `set server … check-addr <address> [port <port>]` and `check-port <port>`.
async fn check_target(
    context: &CommandContext,
    server: &Server,
    (address, port): (Option<&str>, Option<&str>),
) -> Reply {
    let next = match check_moved(server.spec.check.as_ref(), address, port) {
        Ok(next) => next,
        Err(text) => return Reply::warning(text + "\n"),
    };
    set::change(context, RuntimeChange::Check(server.live.uid, Some(next))).await
}

/// The check with another target, or why not.
pub(super) fn check_moved(
    check: Option<&Check>,
    address: Option<&str>,
    port: Option<&str>,
) -> Result<Check, String> {
    let mut next = check
        .ok_or("health checks are not enabled on this server")?
        .clone();
    if let Some(text) = address {
        let ip = address::ip_alone(text).map_err(|_| format!("invalid addr '{text}'"))?;
        next.address = Some(ip);
    }
    if let Some(text) = port {
        let number: i64 = text
            .parse()
            .map_err(|_| "provided port is not an integer")?;
        let port = u16::try_from(number).map_err(|_| "provided port is invalid")?;
        // As in HAProxy 0 is that of the server.
        next.port = Some(port).filter(|port| *port != 0);
    }
    Ok(next)
}

/// `set server … addr <address> [port <port>]`.
async fn address(context: &CommandContext, server: &Server, args: &[&str]) -> Reply {
    let Some(address) = args.first() else {
        let text = "set server <b>/<s> addr requires an address and optionally a port.\n";
        return Reply::error(text);
    };
    let port = match args.get(1..) {
        Some(["port", port, ..]) => Some(*port),
        Some(["port"]) => Some(""),
        _ => None,
    };
    let Moved { to, text } = match moved(server, address, port) {
        Ok(moved) => moved,
        Err(text) => return Reply::warning(text + "\n"),
    };
    if let Some((address, endpoint)) = to {
        let change = RuntimeChange::Address(server.live.uid, address, endpoint);
        let answer = set::change(context, change).await;
        if answer != Reply::Done {
            return answer;
        }
    }
    Reply::warning(text + "\n")
}

/// Where a server goes to, if it moves, and HAProxy's text about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    to: Option<(ServerAddress, Endpoint)>,
    text: String,
}

/// The move of a server to another address or port, or why it cannot move.
pub(super) fn moved(server: &Server, address: &str, port: Option<&str>) -> Result<Moved, String> {
    let old_port = match &server.spec.address {
        ServerAddress::Ip(_, port) | ServerAddress::Name(_, port) => *port,
        ServerAddress::Unix(_) => {
            let text = "Update for the current server address family is only supported through \
                        configuration file.";
            return Err(text.to_owned());
        }
    };
    let old_ip = match &server.endpoint {
        Some(Endpoint::Ip(ip, _)) => Some(*ip),
        _ => None,
    };
    let ip: IpAddr = address::ip_alone(address).map_err(|_| format!("Invalid addr '{address}'"))?;
    let mut new_port = port.map_or(Ok(old_port), parse_port)?;
    // The texts are those of HAProxy 2.6, because libraries know no others: 3.5 says `nothing changed`, or leaves out
    // what did not change.
    let mut text = if old_ip == Some(ip) {
        "no need to change the addr".to_owned()
    } else {
        let old = old_ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        format!("IP changed from '{old}' to '{ip}'")
    };
    let mut check = server.spec.check.iter();
    let cannot_map = matches!(new_port, ServerPort::FromClient(_))
        && check.any(|check| check.port.is_none())
        && new_port != old_port;
    if cannot_map {
        new_port = old_port;
        text.push_str(
            ", can't change <port> to port map because it is incompatible with current health check \
             port configuration (use 'port' statement from the 'server' directive).",
        );
    } else if new_port != old_port {
        let (old, new) = (shown(old_port), shown(new_port));
        // Writing to a string cannot fail.
        let _ = write!(text, ", port changed from '{old}' to '{new}'");
    } else if port.is_some() {
        text.push_str(", no need to change the port");
    }
    text.push_str(" by 'stats socket command'");
    let to = (ServerAddress::Ip(ip, new_port), Endpoint::Ip(ip, new_port));
    let stays = old_ip == Some(ip) && new_port == old_port;
    Ok(Moved {
        to: (!stays).then_some(to),
        text,
    })
}

/// A port, or with a sign the distance to the port of the client's connection.
fn parse_port(text: &str) -> Result<ServerPort, String> {
    let problem = || format!("problem converting port '{text}' to an int");
    let (number, _) = leading_number(text).ok_or_else(problem)?;
    if text.starts_with(['+', '-']) {
        let offset = i32::try_from(number).map_err(|_| problem())?;
        return Ok(ServerPort::FromClient(offset));
    }
    let port = u16::try_from(number).map_err(|_| problem())?;
    Ok(ServerPort::Fixed(port))
}

fn shown(port: ServerPort) -> String {
    match port {
        ServerPort::Fixed(port) => port.to_string(),
        ServerPort::FromClient(offset) => format!("{offset:+}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::ServerLive;
    use crate::state::test_config;
    use std::sync::Arc;
    use std::time::Instant;

    fn server() -> Server {
        let live = Arc::new(ServerLive::new(&Arc::default(), 1));
        Server::new(test_config::server("s1"), live, Instant::now())
    }

    #[test]
    fn a_move_has_haproxys_text() {
        let server = server();
        let by = " by 'stats socket command'";
        for (address, port, expected) in [
            (
                "127.0.0.1",
                None,
                Ok(format!("no need to change the addr{by}")),
            ),
            (
                "127.0.0.1",
                Some("9"),
                Ok(format!(
                    "no need to change the addr, no need to change the port{by}"
                )),
            ),
            (
                "127.0.0.2",
                None,
                Ok(format!("IP changed from '127.0.0.1' to '127.0.0.2'{by}")),
            ),
            (
                "127.0.0.1",
                Some("7"),
                Ok(format!(
                    "no need to change the addr, port changed from '9' to '7'{by}"
                )),
            ),
            (
                "::1",
                Some("7"),
                Ok(format!(
                    "IP changed from '127.0.0.1' to '::1', port changed from '9' to '7'{by}"
                )),
            ),
            ("foo", None, Err("Invalid addr 'foo'".to_owned())),
            (
                "127.0.0.1",
                Some("x"),
                Err("problem converting port 'x' to an int".to_owned()),
            ),
        ] {
            let found = moved(&server, address, port).map(|moved| moved.text);
            assert_eq!(found, expected, "{address} {port:?}");
        }
        let mapped = moved(&server, "127.0.0.1", Some("+5")).unwrap();
        assert!(mapped.to.is_none() && mapped.text.contains(", can't change <port>"));
    }

    #[test]
    fn a_checks_target_has_haproxys_errors() {
        let server = server();
        let check = server.spec.check.as_ref();
        for (address, port, expected) in [
            (None, Some("foo"), "provided port is not an integer"),
            (None, Some("99999"), "provided port is invalid"),
            (Some("nosuch"), None, "invalid addr 'nosuch'"),
        ] {
            let found = check_moved(check, address, port);
            assert_eq!(found, Err(expected.to_owned()));
        }
        let next = check_moved(check, Some("127.0.0.9"), Some("80")).unwrap();
        assert_eq!(
            (next.address, next.port),
            (Some([127, 0, 0, 9].into()), Some(80))
        );
        let unchecked = check_moved(None, None, Some("80"));
        assert_eq!(
            unchecked,
            Err("health checks are not enabled on this server".to_owned())
        );
    }
}
