//! What a listening socket can lose while the configuration stays the same: its network interface is deleted (and
//! another of the same name is made), or its network namespace is, the file of a unix socket is removed or replaced, or a process that shares the
//! socket shuts it down.
//!
//! Control thread; asked at each reload of every socket that stays, and once a second of those that have an
//! interface, a namespace or a file.

use crate::config::model::{Bind, BindAddress};
use crate::sys::namespace;
use crate::sys::socket::{self, FileId};
use crate::worker::ListenerId;
use socket2::Socket;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The interface of this name is not the one that the socket was bound to, or is gone.
    Interface(Arc<str>),
    /// The network namespace of this name is not the one in which it was opened.
    Namespace(Arc<str>),
    /// Its path leads to another file, or to none.
    File,
    /// It does not listen any more.
    Listening,
}

impl Loss {
    /// What the sockets `shards` of `bind` have lost. `file`: what the path of a unix socket led to when it
    /// was opened. `thorough`: ask each socket whether it listens.
    pub(super) fn of(
        bind: &Bind,
        file: Option<FileId>,
        shards: &[Arc<Socket>],
        thorough: bool,
    ) -> Option<Self> {
        // All of them are in the same one.
        if let (Some(name), Some(one)) = (&bind.namespace, shards.first())
            && namespace::is_another(name, one)
        {
            return Some(Self::Namespace(Arc::clone(name)));
        }
        if let Some(interface) = &bind.interface {
            let bound = |one: &Arc<Socket>| {
                let device = one.device();
                device.is_ok_and(|device| device.as_deref() == Some(interface.as_bytes()))
            };
            if !shards.iter().all(bound) {
                return Some(Self::Interface(Arc::from(&**interface)));
            }
        }
        if let Some(path) = file_path(bind)
            && is_file_lost(path, file)
        {
            return Some(Self::File);
        }
        let listens = |one: &Arc<Socket>| one.is_listener().unwrap_or(true);
        (thorough && !shards.iter().all(listens)).then_some(Self::Listening)
    }

    /// Whether opening the sockets of `bind` again may help now.
    pub(super) fn can_be_opened(&self, bind: &Bind) -> bool {
        match self {
            Self::Interface(name) => socket::interface_exists(name, bind.namespace.as_deref()),
            Self::File => file_path(bind).is_some_and(is_path_free),
            Self::Namespace(_) | Self::Listening => true,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => {
                write!(
                    formatter,
                    "interface {name} was deleted since it was opened"
                )
            }
            Self::Namespace(name) => write!(
                formatter,
                "the network namespace {name} was deleted and made again"
            ),
            Self::File => formatter.write_str("the socket's file was removed or replaced"),
            Self::Listening => formatter.write_str("it did not listen any more"),
        }
    }
}

/// A bind whose sockets have lost what they listened on.
#[derive(Debug)]
pub(super) struct LostBind {
    pub(super) id: ListenerId,
    pub(super) proxy: Arc<str>,
    pub(super) address: String,
    pub(super) loss: Loss,
    /// Opening it again may help now.
    pub(super) can_open: bool,
}

/// A bind that stayed the same and was opened again, because its sockets had lost what they listened on.
#[derive(Debug)]
pub(super) struct Reopened {
    pub(super) proxy: Arc<str>,
    pub(super) address: String,
    pub(super) loss: Loss,
    /// Why it could not be opened: it is as it was.
    pub(super) error: Option<io::Error>,
}

impl Reopened {
    /// Writes it to the log. Returns the line for whoever has asked for the reload.
    pub(super) fn report(self) -> String {
        let Self {
            proxy,
            address,
            loss,
            error,
        } = self;
        let proxy = &*proxy;
        match error {
            None => {
                tracing::warn!(proxy, address, reason = %loss, "listening socket opened again");
                format!("{proxy}: {address} opened again: {loss}")
            }
            Some(error) => {
                tracing::error!(proxy, address, reason = %loss, %error, "listening socket lost");
                format!(
                    "{proxy}: {address} takes no connections: {loss}; it cannot be opened again: {error}"
                )
            }
        }
    }
}

/// The path of a unix socket that has a file.
fn file_path(bind: &Bind) -> Option<&Path> {
    match &bind.address {
        BindAddress::Unix(path) if !socket::is_abstract(path) => Some(path),
        _ => None,
    }
}

/// What the path of a unix socket leads to now.
pub(super) fn file_of(bind: &Bind) -> Option<FileId> {
    socket::file_id(file_path(bind)?).ok().flatten()
}

/// Whether the path of a unix socket leads to another file than `file`, which it led to when the socket was
/// opened, or to none.
pub(super) fn is_file_lost(path: &Path, file: Option<FileId>) -> bool {
    socket::file_id(path).is_ok_and(|found| found.is_none() || found != file)
}

/// Whether a unix socket can be opened at `path`: nothing is there, or a socket that nobody listens on.
pub(super) fn is_path_free(path: &Path) -> bool {
    match socket::file_id(path) {
        Ok(None) => true,
        Ok(Some(found)) => {
            found.is_socket
                && socket::unix_address(path).is_ok_and(|it| !socket::is_listened_on(&it))
        }
        Err(_) => false,
    }
}
