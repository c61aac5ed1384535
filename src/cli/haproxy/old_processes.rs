//! What `-sf`, `-st` and `-x` ask for: the processes to take over from, and where their sockets come from. Main thread.

use super::Told;
use super::arguments::Arguments;
use super::messages::Messages;
use crate::sys::getsocks;
use crate::sys::haproxy_master::HaproxyMaster;
use crate::sys::limits::raise_nofile;
use crate::sys::replaced::{ReplacedProcesses, listener_of};
use crate::sys::socket::unix_address;
use rustix::process::Signal;
use socket2::Socket;
use std::path::Path;
use std::rc::Rc;

impl Arguments {
    /// The processes to take over from.
    pub(super) fn old_processes(
        &self,
        messages: &Messages,
    ) -> Result<Option<Rc<ReplacedProcesses>>, Told> {
        let signal = if self.terminate {
            Signal::TERM
        } else {
            Signal::USR1
        };
        let master = HaproxyMaster::of_this_process();
        let sockets = self.sockets_of.as_deref();
        // HAProxy's word for no socket.
        let sockets = sockets.filter(|path| *path != Path::new("/dev/null"));
        let sockets = sockets.map_or(Ok(SocketsOf::Duplicated), |path| {
            // They may be more than the soft limit allows. A start that cannot raise it fails later, with the reason.
            let _ = raise_nofile();
            SocketsOf::listener(path, &master).ok_or(path)
        });
        let sockets = match sockets {
            Ok(sockets) => sockets,
            Err(path) => {
                messages.alert("Failed to get the sockets from the old process!");
                // HAProxy's master goes on without them, too.
                if !self.master_worker {
                    return Err(Told);
                }
                tracing::error!(path = %path.display(), "no sockets: new ones are opened");
                SocketsOf::Duplicated
            }
        };
        let (others, given) = match sockets {
            SocketsOf::Duplicated => (vec![], None),
            SocketsOf::Process(pid) => (vec![pid], None),
            SocketsOf::Given(sockets, pid) => (pid.into_iter().collect(), Some(sockets)),
        };
        let old = match &self.old[..] {
            [] => ReplacedProcesses::new(&others, None),
            pids => ReplacedProcesses::new(pids, Some(signal)),
        };
        let none = old.is_empty() && given.is_none();
        Ok((!none).then(|| Rc::new(old.with(master, given))))
    }
}

/// Where the sockets of the old processes come from.
enum SocketsOf {
    /// They are duplicated.
    Duplicated,
    /// Those of this process are: it does not give them.
    Process(i32),
    /// They were given by this process, if it can be seen.
    Given(Vec<Socket>, Option<i32>),
}

impl SocketsOf {
    /// Those of whoever listens at the path of `-x`.
    fn listener(path: &Path, master: &HaproxyMaster) -> Option<Self> {
        if let Some(pair) = master.pair(&path.to_string_lossy()) {
            return Some(Self::Given(getsocks::take_by_pair(pair).ok()?, None));
        }
        let pid = listener_of(path).map(|pid| pid.as_raw_nonzero().get());
        match getsocks::take(&unix_address(path).ok()?) {
            Ok(sockets) => Some(Self::Given(sockets, pid)),
            // It may be without `expose-fd listeners`.
            Err(_) => pid.map(Self::Process),
        }
    }
}
