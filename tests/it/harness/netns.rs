//! Network namespaces: created with the `ip` command, named by this process's id, removed when dropped.
//!
//! A thread enters a namespace with `setns` and stays there, so that clients and servers are threads of the
//! test. A child of such a thread is in the namespace, too.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// The directory of `ip netns`.
const NETNS_DIR: &str = "/run/netns";

/// Distinguishes the namespaces of tests in one process.
static LABS: AtomicUsize = AtomicUsize::new(0);

/// The nodes' names and addresses in the kurl-ha configuration.
pub(crate) const NODES: [(&str, &str); 3] = [
    ("node01", "10.240.0.37"),
    ("node02", "10.240.0.39"),
    ("node03", "10.240.0.71"),
];

/// The balancer's address.
pub(crate) const LB_ADDRESS: &str = "10.240.0.10";

/// The client's address.
pub(crate) const CLIENT_ADDRESS: &str = "10.240.0.200";

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// A namespace of a test's own, which has the loopback device alone.
    pub(crate) fn loopback() -> Self {
        remove_leftovers();
        Self::new(format!("{}-loopback", unique()))
    }

    /// Makes a namespace with its loopback device up.
    fn new(name: String) -> Self {
        ip(&["netns", "add", &name]);
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    /// Makes one that is no machine of a [`Lab`].
    pub(crate) fn alone(name: &str) -> Self {
        remove_leftovers();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Self::new(format!("rlb{}l{number}-{name}", std::process::id()))
    }

    /// Its name, for the `ip` of another namespace.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(arguments);
        ip(&all);
    }

    /// Runs `action` inside, on a thread of its own, and waits for it.
    pub(crate) fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.join_thread();
                    action()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let netns = self.open();
        std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).expect("root may enter its own namespace");
            action()
        })
    }

    /// Writes a file below `/proc/sys/net` of this namespace.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        self.enter(|| {
            std::fs::write(format!("/proc/sys/net/{path}"), value)
                .unwrap_or_else(|error| panic!("sysctl {path}: {error}"));
        });
    }

    fn open(&self) -> File {
        File::open(format!("{NETNS_DIR}/{}", self.name)).expect("the namespace exists")
    }

    fn join_thread(&self) {
        setns(self.open(), CloneFlags::CLONE_NEWNET).expect("root may enter its own namespace");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .output(),
        );
    }
}

/// The machines of the kurl-ha cluster on one bridge: a client, the balancer, and the nodes that are switched
/// on.
#[derive(Debug)]
pub(crate) struct Lab {
    prefix: String,
    switch: Netns,
    /// The machine of the load.
    pub(crate) client: Netns,
    /// The machine of the balancer.
    pub(crate) lb: Netns,
    nodes: [Option<Netns>; 3],
}

impl Lab {
    /// A bridge in a namespace of its own, the client and the balancer; no node is switched on.
    pub(crate) fn new() -> Self {
        remove_leftovers();
        let prefix = unique();
        let switch = Netns::new(format!("{prefix}-switch"));
        switch.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0"]);
        switch.ip(&["link", "set", "br0", "up"]);
        let client = machine(
            &switch,
            &format!("{prefix}-client"),
            "client",
            CLIENT_ADDRESS,
        );
        let lb = machine(&switch, &format!("{prefix}-lb"), "lb", LB_ADDRESS);
        Self {
            prefix,
            switch,
            client,
            lb,
            nodes: [const { None }; 3],
        }
    }

    /// Switches a node on: a new namespace on a new switch port.
    pub(crate) fn power_on(&mut self, node: usize) {
        assert!(self.nodes[node].is_none(), "the node has power already");
        let (name, address) = NODES[node];
        let netns = machine(
            &self.switch,
            &format!("{}-{name}", self.prefix),
            name,
            address,
        );
        self.nodes[node] = Some(netns);
    }

    /// Switches a node off. Its switch port is removed first: no FIN, no RST, no answer. The caller ends the
    /// node's services afterwards; what they send is lost.
    pub(crate) fn power_off(&mut self, node: usize) {
        self.switch.ip(&["link", "del", NODES[node].0]);
        self.nodes[node] = None;
    }

    /// Takes the switch port of a node down (`false`) or up again: a network split.
    pub(crate) fn link(&self, node: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        self.switch.ip(&["link", "set", NODES[node].0, state]);
    }

    /// The namespace of a node that is switched on.
    pub(crate) fn node(&self, node: usize) -> &Netns {
        self.nodes[node].as_ref().expect("the node has power")
    }
}

/// Creates a machine: a namespace, and a link from its `eth0` to the port `port` of the bridge.
fn machine(switch: &Netns, name: &str, port: &str, address: &str) -> Netns {
    let netns = Netns::new(name.to_owned());
    switch.ip(&[
        "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name,
    ]);
    switch.ip(&["link", "set", port, "master", "br0", "up"]);
    // The same after a return, as on a real machine, so that no neighbour table must change.
    let last: u8 = address
        .rsplit('.')
        .next()
        .and_then(|it| it.parse().ok())
        .expect("an address");
    netns.ip(&[
        "link",
        "set",
        "eth0",
        "address",
        &format!("02:00:0a:f0:00:{last:02x}"),
    ]);
    netns.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    netns.ip(&["link", "set", "eth0", "up"]);
    netns
}

/// What the names of a laboratory's namespaces begin with.
fn unique() -> String {
    let number = LABS.fetch_add(1, Ordering::Relaxed);
    format!("rlb{}l{number}", std::process::id())
}

/// Removes namespaces of test processes that were killed.
fn remove_leftovers() {
    let Ok(names) = std::fs::read_dir(NETNS_DIR) else {
        return;
    };
    for entry in names.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("rlb")
            .and_then(|rest| rest.split_once('l'))
            .map(|it| it.0);
        let Some(Ok(owner)) = owner.map(str::parse::<u32>) else {
            continue;
        };
        if !std::path::Path::new(&format!("/proc/{owner}")).exists() {
            drop(Command::new("ip").args(["netns", "del", &name]).output());
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
