//! Giving up the user root: a process that was started as root becomes another user once its sockets are open, and keeps
//! one right, to listen on ports below 1024, so that reloads go on working.
//!
//! Control thread, once, when the process serves. The C library changes the user of all threads. The right belongs to the
//! calling thread and to those that it starts from then on; those that run already lose it. Processes that it starts have
//! the right too (ambient capabilities): in the process after an upgrade all threads have it.

use super::raw;
use rustix::process::{DumpableBehavior, Gid, Uid, geteuid, getgroups, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    set_capabilities, set_keep_capabilities, set_thread_gid, set_thread_uid,
};
use std::io;

/// What is kept.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// The user and the group that a process is to run as; `None`: as it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    user: Option<u32>,
    group: Option<u32>,
}

impl Identity {
    /// Of a process that runs as root; `None`: it does not, or is to go on as root. 0 is as if it was not there, as in
    /// HAProxy.
    pub fn to_take(user: Option<u32>, group: Option<u32>) -> Option<Self> {
        let [user, group] = [user, group].map(|number| number.filter(|number| *number != 0));
        let changes = user.is_some() || group.is_some();
        (changes && geteuid().is_root()).then_some(Self { user, group })
    }

    /// Whether the process is another user than root afterwards.
    pub fn gives_up_root(self) -> bool {
        self.user.is_some()
    }

    /// Whether this process may take it. It is tried on a thread of its own, which alone it changes.
    ///
    /// # Errors
    /// `PermissionDenied`, in a container without the right; `InvalidInput`, for a number that is none here.
    pub fn may_take(self) -> io::Result<()> {
        if [self.user, self.group].contains(&Some(u32::MAX)) {
            return Err(io::ErrorKind::InvalidInput.into());
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
        let kept = capabilities(None)?.permitted & KEPT;
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
            set_capabilities(
                None,
                CapabilitySets {
                    effective: kept,
                    permitted: kept,
                    inheritable: kept,
                },
            )?;
            set_keep_capabilities(false)?;
            // Neither is needed to serve.
            if !kept.is_empty() && configure_capability_in_ambient_set(kept, true).is_err() {
                tracing::warn!("after an upgrade no ports below 1024 can be opened");
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
        assert_eq!(Identity::to_take(None, None), None);
        assert_eq!(Identity::to_take(Some(0), Some(0)), None);
        let identity = Identity::to_take(Some(65534), Some(0));
        assert_eq!(identity.is_some(), geteuid().is_root());
        assert!(identity.is_none_or(|identity| identity.group.is_none()));
    }

    /// It was noticed after the process before this one had ended.
    #[test]
    fn a_number_that_is_no_user_is_refused_and_a_trial_changes_nothing() {
        let Some(identity) = Identity::to_take(Some(65534), Some(65534)) else {
            return;
        };
        identity.may_take().unwrap();
        assert!(geteuid().is_root());
        let nobody = Identity::to_take(Some(u32::MAX), None).unwrap();
        assert!(nobody.may_take().is_err());
    }
}
