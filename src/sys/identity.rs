//! Giving up the user root: a process that was started as root becomes another user once its sockets are open, and keeps
//! one right, to listen on ports below 1024, so that reloads go on working, and those of HAProxy's `setcap`.
//!
//! Control thread, once, when the process serves. The C library changes the user of all threads. The rights belong to the
//! calling thread and to those that it starts from then on; those that run already lose them. Processes that it starts have
//! the rights too (ambient capabilities): in the process after an upgrade all threads have them. Workers connect to
//! servers, so each of them keeps what `setcap` says: it takes a [`Step`] on its own thread before the change and after
//! it.

use super::raw;
use rustix::process::{DumpableBehavior, Gid, Uid, geteuid, getgroups, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    set_capabilities, set_keep_capabilities, set_thread_gid, set_thread_uid,
};
use std::io;

/// What is always kept.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Capabilities that a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept(CapabilitySet);

impl Default for Kept {
    fn default() -> Self {
        Self(CapabilitySet::empty())
    }
}

impl Kept {
    /// Those of HAProxy's `setcap` that it has with these names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let known = names.into_iter().map(|name| match name {
            "cap_net_raw" => CapabilitySet::NET_RAW,
            "cap_net_admin" => CapabilitySet::NET_ADMIN,
            "cap_net_bind_service" => CapabilitySet::NET_BIND_SERVICE,
            "cap_sys_admin" => CapabilitySet::SYS_ADMIN,
            _ => CapabilitySet::empty(),
        });
        Self(known.fold(CapabilitySet::empty(), CapabilitySet::union))
    }

    /// Whether it may use addresses of others.
    pub fn has_foreign_addresses(self) -> bool {
        let either = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        self.0.intersects(either)
    }

    /// Whether it may enter network namespaces.
    pub fn has_namespaces(self) -> bool {
        self.0.contains(CapabilitySet::SYS_ADMIN)
    }

    /// Puts those into force that this thread, which is no root's, may have and does not use (the capabilities of the
    /// program's file). Threads that it starts have them, too.
    ///
    /// # Errors
    /// Those of the calls.
    pub fn use_permitted(self) -> io::Result<()> {
        let own = capabilities(None)?;
        let more = own.permitted & self.0;
        if geteuid().is_root() || own.effective.contains(more) {
            return Ok(());
        }
        let effective = own.effective | more;
        Ok(set_capabilities(None, CapabilitySets { effective, ..own })?)
    }
}

/// What a worker does on its own thread, so that it keeps capabilities while the user changes.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Before the change.
    Before,
    /// After it: it has these, and no others.
    After(Kept),
}

impl Step {
    /// Does it on the calling thread.
    ///
    /// # Errors
    /// Those of the calls.
    pub fn take(self) -> io::Result<()> {
        match self {
            Self::Before => set_keep_capabilities(true)?,
            Self::After(kept) => {
                settle(kept.0)?;
                set_keep_capabilities(false)?;
            }
        }
        Ok(())
    }
}

/// The calling thread has these, and no others.
fn settle(kept: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    Ok(set_capabilities(None, sets)?)
}

/// The user and the group that a process is to run as; `None`: as it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    user: Option<u32>,
    group: Option<u32>,
    /// What it keeps beside [`KEPT`].
    kept: Kept,
}

impl Identity {
    /// Of a process that runs as root; `None`: it does not, or is to go on as root. 0 is as if it was not there, as in
    /// HAProxy.
    pub fn to_take(user: Option<u32>, group: Option<u32>, kept: Kept) -> Option<Self> {
        let [user, group] = [user, group].map(|number| number.filter(|number| *number != 0));
        let changes = user.is_some() || group.is_some();
        (changes && geteuid().is_root()).then_some(Self { user, group, kept })
    }

    /// Whether the process is another user than root afterwards.
    pub fn gives_up_root(self) -> bool {
        self.user.is_some()
    }

    /// The capabilities that workers keep; `None`: they have none to keep.
    pub fn kept_by_workers(self) -> Option<Kept> {
        (self.gives_up_root() && self.kept != Kept::default()).then_some(self.kept)
    }

    /// Whether this process may take it. It is tried on a thread of its own, which alone it changes.
    ///
    /// # Errors
    /// `PermissionDenied`, in a container without the right or without a capability that is to be kept; `InvalidInput`, for a number that is none here.
    pub fn may_take(self) -> io::Result<()> {
        if [self.user, self.group].contains(&Some(u32::MAX)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.gives_up_root() && !capabilities(None)?.permitted.contains(self.kept.0) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let tried = std::thread::spawn(move || {
            if let Some(group) = self.group {
                set_thread_gid(Gid::from_raw(group))?;
            }
            if let Some(user) = self.user {
                set_thread_uid(Uid::from_raw(user))?;
            }
            Ok(())
        });
        tried
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }

    /// Takes it.
    ///
    /// # Errors
    /// Those of the calls; none is expected after [`Self::may_take`].
    pub fn take(self) -> io::Result<()> {
        let kept = capabilities(None)?.permitted & (KEPT | self.kept.0);
        if let Some(group) = self.group {
            // Some containers do not allow it, and HAProxy goes on then, too.
            if !getgroups()?.is_empty()
                && let Err(error) = raw::clear_groups()
            {
                tracing::warn!(%error, "supplementary groups stay");
            }
            raw::set_group(group)?;
        }
        if let Some(user) = self.user {
            set_keep_capabilities(true)?;
            raw::set_user(user)?;
            settle(kept)?;
            set_keep_capabilities(false)?;
            // Neither is needed to serve. A call takes one capability.
            let mut each = kept.iter();
            if each.any(|one| configure_capability_in_ambient_set(one, true).is_err()) {
                tracing::warn!("the process after an upgrade has no capabilities");
            }
            // Otherwise its own files in /proc are root's.
            let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        }
        tracing::info!(
            user = self.user,
            group = self.group,
            "user and group changed"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_nothing_to_become() {
        assert_eq!(Identity::to_take(None, None, Kept::default()), None);
        assert_eq!(Identity::to_take(Some(0), Some(0), Kept::default()), None);
        let identity = Identity::to_take(Some(65534), Some(0), Kept::default());
        assert_eq!(identity.is_some(), geteuid().is_root());
        assert!(identity.is_none_or(|identity| identity.group.is_none()));
    }

    /// It was noticed after the process before this one had ended.
    #[test]
    fn a_number_that_is_no_user_is_refused_and_a_trial_changes_nothing() {
        let Some(identity) = Identity::to_take(Some(65534), Some(65534), Kept::default()) else {
            return;
        };
        identity.may_take().unwrap();
        assert!(geteuid().is_root());
        let nobody = Identity::to_take(Some(u32::MAX), None, Kept::default()).unwrap();
        assert!(nobody.may_take().is_err());
    }
}
