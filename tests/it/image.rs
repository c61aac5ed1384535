//! The OCI image: the archive as the specification has it, and what it runs, in its own folders as its own user,
//! as a container runtime starts it. The static pods of packaging/kubernetes are run in it.

use crate::checks_over_tls::api_server;
use crate::harness::client::{connect, echo, hear, http_get};
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::STOP_WITHIN;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Longest time for a change of a server's state or of a name.
const CHANGED_WITHIN: Duration = Duration::from_secs(20);

/// Sets a container up and becomes its program. Arguments: the root, `ro` or `rw`, the image's variable PATH, the
/// program's words. As a runtime does, it adds `/proc`; of a root that cannot be written it makes `/run/rlb` a
/// volume in memory.
const CONTAINER: &str = r#"set -e
root=$1 access=$2 path=$3
shift 3
mount --bind "$root" "$root"
mkdir -p "$root/proc"
mount -t proc proc "$root/proc"
if [ "$access" = ro ]; then
    mount -t tmpfs -o mode=777 none "$root/run/rlb"
    mount -o remount,bind,ro "$root"
fi
PATH=$PATH:/usr/sbin
exec env -i "$path" "$(command -v chroot)" --userspec=99:99 --groups= "$root" "$@""#;

fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// An archive of `packaging/build-image`, its files, and the files of its layer.
struct Image {
    archive: PathBuf,
    folder: TempDir,
}

impl Image {
    /// The image of the tests' program, which is built once. `None` when there is no such program; the test must
    /// return then.
    #[track_caller]
    fn built() -> Option<Self> {
        static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
        let program = needs::static_program()?;
        let archive = ARCHIVE.get_or_init(|| {
            let archive = program.with_extension("oci.tar");
            build(&program, &archive);
            archive
        });
        let folder = tempfile::tempdir().expect("a folder");
        let image = Self {
            archive: archive.clone(),
            folder,
        };
        unpack(archive, &image.path("layout"));
        Some(image)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn json(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.path("layout").join(name)).expect("a file");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The path of the blob that a descriptor names, in the layout. Its digest and size are right.
    #[track_caller]
    fn blob(&self, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let (algorithm, number) = digest.split_once(':').expect("an algorithm");
        let name = format!("blobs/{algorithm}/{number}");
        let path = self.path("layout").join(&name);
        let size = fs::metadata(&path).expect("a blob").len();
        assert_eq!(descriptor["size"].as_u64(), Some(size), "{descriptor}");
        assert_eq!(sha256(&path), number);
        name
    }

    fn manifest(&self) -> Value {
        self.json(&self.blob(&self.json("index.json")["manifests"][0]))
    }

    fn config(&self) -> Value {
        self.json(&self.blob(&self.manifest()["config"]))
    }

    /// Unpacks the layer into a new folder.
    fn root(&self, name: &str) -> PathBuf {
        let layer = self.blob(&self.manifest()["layers"][0]);
        let root = self.path(name);
        unpack(&self.path("layout").join(layer), &root);
        root
    }

    /// Starts `words` in `root`, and waits until it serves.
    #[track_caller]
    fn start(&self, root: &Path, netns: &Netns, access: &str, words: &[String]) -> Process {
        let path = &self.config()["config"]["Env"][0];
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", CONTAINER, "sh"])
            .arg(root)
            .args([access, path.as_str().expect("a variable")])
            .args(words);
        let process = Process::start(command, Some(netns), false);
        process.stderr.wait_for("ready version=");
        let status = format!("/proc/{}/status", process.id());
        let status = fs::read_to_string(status).expect("a process");
        assert!(status.contains("\nUid:\t99\t99\t99\t99\n"), "{status}");
        assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
        process
    }

    /// Stops it as a runtime does, and expects that it ends by itself.
    #[track_caller]
    fn stop(&self, mut process: Process) {
        let signal = self.config()["config"]["StopSignal"].clone();
        let signal: Signal = signal.as_str().and_then(|it| it.parse().ok()).expect("one");
        process.signal(signal);
        assert!(process.wait(STOP_WITHIN).success());
    }
}

fn build(program: &Path, archive: &Path) {
    run(Command::new(repository("packaging/build-image"))
        .arg(archive)
        .env("RLB_BINARY", program)
        .env("SOURCE_DATE_EPOCH", "1700000000"));
}

fn unpack(archive: &Path, folder: &Path) {
    fs::create_dir(folder).expect("a new folder");
    run(Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(folder));
}

fn sha256(path: &Path) -> String {
    let said = run(Command::new("sha256sum").arg(path));
    said.split(' ').next().expect("a digest").to_owned()
}

fn words(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).expect("a list of words")
}

#[test]
fn the_archive_is_an_oci_layout_and_the_same_input_gives_the_same() {
    let Some(image) = Image::built() else { return };
    assert_eq!(image.json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = image.json("index.json");
    assert_eq!(index["schemaVersion"], 2);
    let listed = &index["manifests"][0];
    let manifest = image.manifest();
    for (found, expected) in [
        (&index, "index.v1+json"),
        (&manifest, "manifest.v1+json"),
        (&manifest["config"], "config.v1+json"),
        (&manifest["layers"][0], "layer.v1.tar+gzip"),
        (listed, "manifest.v1+json"),
    ] {
        let found = found["mediaType"].as_str().expect("a type");
        assert!(found.starts_with("application/vnd.oci.image."), "{found}");
        assert!(found.ends_with(expected), "{found}");
    }
    let config = image.config();
    assert_eq!(listed["platform"]["architecture"], config["architecture"]);
    let layer = image
        .path("layout")
        .join(image.blob(&manifest["layers"][0]));
    fs::copy(layer, image.path("layer.gz")).expect("copied");
    run(Command::new("gunzip").arg(image.path("layer.gz")));
    let content = format!("sha256:{}", sha256(&image.path("layer")));
    assert_eq!(config["rootfs"]["diff_ids"][0], content);
    // What `docker load` of older versions reads names the same files.
    let older = image.json("manifest.json");
    assert_eq!(older[0]["Config"], image.blob(&manifest["config"]));
    assert_eq!(older[0]["Layers"][0], image.blob(&manifest["layers"][0]));
    let version = config["config"]["Labels"]["org.opencontainers.image.version"].as_str();
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));

    let again = image.path("again");
    build(&needs::static_program().expect("named"), &again);
    assert_eq!(sha256(&image.archive), sha256(&again));
}

#[test]
fn its_files_belong_to_root_but_for_the_folders_of_its_user() {
    if !needs::root() {
        return;
    }
    let Some(image) = Image::built() else { return };
    let root = image.root("root");
    let of = |name: &str| {
        let data = fs::symlink_metadata(root.join(name)).unwrap_or_else(|_| panic!("{name}"));
        (data.uid(), data.gid(), data.mode() & 0o7777)
    };
    assert_eq!(of("usr/local/bin/rlb"), (0, 0, 0o755));
    assert_eq!(of("etc/passwd"), (0, 0, 0o644));
    assert_eq!(of("etc/rlb"), (0, 0, 0o755));
    assert_eq!(of("run/rlb"), (99, 0, 0o775));
    assert_eq!(of("var/lib/rlb"), (99, 0, 0o775));
    assert_eq!(of("tmp"), (0, 0, 0o1777));
    let licences = root.join("usr/local/share/doc/rlb/licenses-of-crates.txt");
    let licences = fs::read_to_string(licences).expect("the licences");
    assert!(licences.contains("\n  tokio "));
}

/// A nameserver: the address of every name is 127.0.0.1.
fn serve_names(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let mut answer = buffer[..length].to_vec();
        // The question ends with an empty label, its type and its class; what follows it is left out.
        let name_end = 12
            + buffer[12..length]
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(0);
        answer.truncate(name_end + 5);
        let asks_ipv4 = answer[name_end + 1..name_end + 3] == [0, 1];
        // An answer, recursion available, no error; the numbers of answers and of further records.
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[6..12].copy_from_slice(&[0, u8::from(asks_ipv4), 0, 0, 0, 0]);
        if asks_ipv4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        drop(socket.send_to(&answer, client));
    }
}

#[test]
fn it_runs_as_its_user_and_finds_hosts_users_and_names() {
    if !needs::root() {
        return;
    }
    let Some(image) = Image::built() else { return };
    let netns = Netns::loopback();
    // As in a container with a network of its own.
    netns.sysctl("ipv4/ip_unprivileged_port_start", "0");
    let server: SocketAddr = "127.0.0.1:9000".parse().expect("an address");
    let _server = netns.enter(|| Peer::start_at(server, Behaviour::Says("hello")));
    let names = netns.enter(|| UdpSocket::bind("127.0.0.1:53").expect("port 53"));
    std::thread::spawn(move || serve_names(&names));

    let root = image.root("root");
    let write = |name: &str, text: &str| fs::write(root.join(name), text).expect("written");
    write("etc/hosts", "127.0.0.1 localhost server.hosts.test\n");
    write("etc/resolv.conf", "nameserver 127.0.0.1\n");
    // A module that a static program cannot load.
    write("etc/nsswitch.conf", "hosts: resolve [!UNAVAIL=return]\n");
    let mut config = String::from(
        "[runtime-api]\nsocket = \"/run/rlb/admin.sock\"\nowner = \"haproxy\"\ngroup = \"rlb\"\n",
    );
    let services = [
        (80, "localhost"),
        (81, "server.hosts.test"),
        (82, "server.dns.test"),
    ];
    for (port, host) in services {
        let service = format!(
            "[[listen]]\nname = \"{host}\"\nbind = \"127.0.0.1:{port}\"\n\
             servers = [{{ name = \"s\", address = \"{host}:9000\" }}]\n"
        );
        config.push_str(&service);
    }
    write("etc/rlb/rlb.toml", &config);
    let command = words(&image.config()["config"]["Cmd"]);
    let process = image.start(&root, &netns, "rw", &command);
    for (port, host) in services {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually_true(CHANGED_WITHIN, host, || {
            netns.enter(|| hear(address)).0 == "hello"
        });
    }
    let socket = fs::metadata(root.join("run/rlb/admin.sock")).expect("the socket");
    assert_eq!((socket.uid(), socket.gid()), (99, 99));
    image.stop(process);
}

/// The values of a key of a manifest.
fn values<'a>(manifest: &'a str, key: &str) -> Vec<&'a str> {
    let start = format!("{key}: ");
    let lines = manifest
        .lines()
        .map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(&start)).collect()
}

/// The value of a key, which is the same wherever it stands.
#[track_caller]
fn value<'a>(manifest: &'a str, key: &str) -> &'a str {
    let mut values = values(manifest, key);
    values.dedup();
    assert_eq!(values.len(), 1, "{key}");
    values[0]
}

/// Runs a static pod with its configuration at its mount. Three API servers run at first, then none.
fn pod(manifest: &str, config: &str, probe: impl Fn(&Netns, &str, bool)) {
    let Some(image) = Image::built() else { return };
    let manifest = fs::read_to_string(repository("packaging/kubernetes").join(manifest));
    let manifest = manifest.expect("a manifest");
    let netns = Netns::loopback();
    let servers = ["10.0.0.11", "10.0.0.12", "10.0.0.13"].map(|host| {
        netns.ip(&["address", "add", host, "dev", "lo"]);
        let address = format!("{host}:6443").parse().expect("an address");
        netns.enter(|| Peer::start_at(address, api_server()))
    });
    let root = image.root("root");
    let mount = root.join(values(&manifest, "mountPath")[0].trim_start_matches('/'));
    let (folder, file) = if mount.extension().is_some() {
        (mount.parent().expect("a folder").to_owned(), mount)
    } else {
        (mount.clone(), mount.join("rlb.toml"))
    };
    fs::create_dir_all(folder).expect("the folder of the mount");
    fs::copy(repository("packaging/kubernetes").join(config), file).expect("copied");
    let command = serde_json::from_str(value(&manifest, "command")).expect("a list");
    assert_eq!(value(&manifest, "readOnlyRootFilesystem"), "true");
    let process = image.start(&root, &netns, "ro", &words(&command));

    netns.enter(|| echo(&mut connect(balancer()), b"kubectl"));
    probe(&netns, &manifest, true);
    drop(servers);
    probe(&netns, &manifest, false);
    image.stop(process);
}

/// Where clients reach the API servers in the pods' configurations.
fn balancer() -> SocketAddr {
    "127.0.0.1:6444".parse().expect("an address")
}

fn is_accepted(netns: &Netns, manifest: &str, _servers_run: bool) {
    // Both probes connect, and ask no API server.
    assert!(!manifest.contains("httpGet"));
    let host = value(manifest, "host");
    let port = value(manifest, "port");
    assert_eq!(format!("{host}:{port}"), balancer().to_string());
    netns.enter(|| drop(TcpStream::connect(balancer()).expect("accepted")));
}

fn is_alive_and_ready(netns: &Netns, manifest: &str, servers_run: bool) {
    let address = format!("{}:{}", value(manifest, "host"), value(manifest, "port"));
    let address: SocketAddr = address.parse().expect("an address");
    let status = |path: &str| netns.enter(|| http_get(address, path).expect("an answer").0);
    let ready = if servers_run { 200 } else { 503 };
    eventually_eq(CHANGED_WITHIN, &ready, || status("/readyz"));
    let (liveness, readiness) = manifest.split_once("readinessProbe:").expect("two probes");
    assert_eq!(values(readiness, "path")[0], "/readyz");
    let liveness = liveness.split_once("livenessProbe:").expect("a probe").1;
    assert_eq!(status(value(liveness, "path")), 200);
}

#[test]
fn kubeadms_pod_runs_the_haproxy_cfg_of_its_guide() {
    if needs::root() {
        pod("kubeadm/haproxy.yaml", "kubeadm/haproxy.cfg", is_accepted);
    }
}

#[test]
fn kurls_pod_runs_the_haproxy_cfg_of_kurl() {
    if needs::root() {
        pod("kurl/haproxy.yaml", "kurl/haproxy.cfg", is_accepted);
    }
}

#[test]
fn a_pod_is_not_restarted_when_no_api_server_is_up() {
    if needs::root() {
        pod("rlb.yaml", "kubeadm/rlb.toml", is_alive_and_ready);
    }
}

#[test]
fn kurls_configuration_runs_in_the_same_pod() {
    if needs::root() {
        pod("rlb.yaml", "kurl/rlb.toml", is_alive_and_ready);
    }
}
