//! The services of the nodes: real nginx, real PostgreSQL, TLS, and a scripted server. All are children or
//! threads of the test, started in a node's namespace and ended by their id.

use crate::harness::client::http_get;
use crate::harness::eventually::eventually_true;
use crate::harness::netns::{LB_ADDRESS, Lab, NODES};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// From the start of a service to its first answer, on a loaded machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// The port of the application.
pub(crate) const APP: u16 = 80;
/// The port of the admin console.
pub(crate) const CONSOLE: u16 = 8800;
/// The port of the Kubernetes API: TLS.
pub(crate) const KUBE_API: u16 = 6443;

/// Starts nginx on a node, answering with the node's name; over TLS on [`KUBE_API`].
pub(crate) fn nginx(lab: &Lab, node: usize, port: u16) -> Nginx {
    let (name, address) = NODES[node];
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display();
    let tls = if port == KUBE_API {
        certificate(dir.path());
        format!("ssl_certificate {path}/cert.pem; ssl_certificate_key {path}/key.pem;")
    } else {
        String::new()
    };
    let ssl = if port == KUBE_API { " ssl" } else { "" };
    let config = dir.path().join("nginx.conf");
    // `lingering_close`: openssl sends a last message after the last answer. A socket that is closed by then
    // resets, which the proxy correctly counts as the server's error.
    let text = format!(
        "daemon off; master_process off; user root; pid {path}/pid; error_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; lingering_close always; client_body_temp_path {path}/b; proxy_temp_path {path}/p; \
         fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
         server {{ listen {address}:{port}{ssl}; {tls} location / {{ return 200 \"{name}\\n\"; }} }} }}\n"
    );
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir.path()).arg("-c").arg(&config);
    let process = Process::start(command, Some(lab.node(node)), false);
    let target: std::net::SocketAddr = format!("{address}:{port}").parse().expect("an address");
    eventually_true(STARTS_WITHIN, "nginx listens", || {
        lab.node(node)
            .enter(|| std::net::TcpStream::connect(target).is_ok())
    });
    Nginx { process, _dir: dir }
}

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Process,
    _dir: TempDir,
}

impl Nginx {
    /// Stops it as `systemctl stop` does while it has work: its sockets close, and from then on the kernel
    /// answers with resets.
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(STARTS_WITHIN);
    }
}

/// A self-signed certificate, as in a new cluster.
fn certificate(dir: &Path) {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=kubernetes", "-keyout"])
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Starts a scripted server on a node.
pub(crate) fn scripted(lab: &Lab, node: usize, port: u16, behaviour: Behaviour) -> Peer {
    let address = format!("{}:{port}", NODES[node].1)
        .parse()
        .expect("an address");
    lab.node(node).enter(|| Peer::start_at(address, behaviour))
}

/// The path of a PostgreSQL program, of any version.
pub(crate) fn postgres_program(name: &str) -> PathBuf {
    glob::glob(&format!("/usr/lib/postgresql/*/bin/{name}"))
        .expect("a pattern")
        .flatten()
        .max()
        .unwrap_or_else(|| panic!("{name} is not installed"))
}

/// A database cluster that is created once and copied for each node.
pub(crate) struct Database {
    dir: TempDir,
}

impl Database {
    /// Creates the files, with pgbench's tables.
    pub(crate) fn create() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), mode).expect("ours");
        let (user, group) = postgres_user();
        let template = dir.path().join("template");
        std::fs::create_dir(&template).expect("created");
        std::os::unix::fs::chown(&template, Some(user), Some(group)).expect("root may");
        let mut initdb = Command::new(postgres_program("initdb"));
        initdb
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(&template)
            .current_dir("/")
            .uid(user)
            .gid(group);
        success(&initdb.output().expect("initdb starts"));
        let hba = std::fs::OpenOptions::new()
            .append(true)
            .open(template.join("pg_hba.conf"));
        std::io::Write::write_all(
            &mut hba.expect("initdb wrote it"),
            b"host all all 10.240.0.0/24 trust\n",
        )
        .expect("written");
        Self { dir }
    }

    /// Starts PostgreSQL on a node, with its own copy of the files.
    pub(crate) fn start(&self, lab: &Lab, node: usize) -> Process {
        let (name, address) = NODES[node];
        let data = self.dir.path().join(name);
        drop(std::fs::remove_dir_all(&data));
        let template = self.dir.path().join("template");
        success(
            &Command::new("cp")
                .arg("-a")
                .arg(&template)
                .arg(&data)
                .output()
                .expect("cp starts"),
        );
        let (user, group) = postgres_user();
        let mut command = Command::new(postgres_program("postgres"));
        command
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                &format!("listen_addresses={address}"),
                "-c",
                "fsync=off",
            ])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "shared_buffers=16MB",
            ])
            .args([
                "-c",
                "dynamic_shared_memory_type=mmap",
                "-c",
                "max_connections=50",
            ])
            .current_dir("/")
            .uid(user)
            .gid(group);
        let process = Process::start(command, Some(lab.node(node)), false);
        eventually_true(STARTS_WITHIN, "PostgreSQL answers", || {
            psql(lab, address, "select 1").status.success()
        });
        let bench = pgbench(lab, address, &["--initialize", "--quiet", "--scale=1"]);
        success(&bench);
        process
    }
}

/// The user of PostgreSQL, which must not be root.
fn postgres_user() -> (u32, u32) {
    let text = std::fs::read_to_string("/etc/passwd").expect("readable");
    let line = text
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("the package makes the user");
    let mut ids = line
        .split(':')
        .skip(2)
        .map(|field| field.parse().expect("a number"));
    (
        ids.next().expect("a user id"),
        ids.next().expect("a group id"),
    )
}

/// Runs a statement from the client's machine.
pub(crate) fn psql(lab: &Lab, host: &str, statement: &str) -> Output {
    let mut command = Command::new(postgres_program("psql"));
    command
        .args([
            "-h", host, "-U", "postgres", "-d", "postgres", "-At", "-c", statement,
        ])
        .env("PGCONNECT_TIMEOUT", "10")
        .current_dir("/");
    lab.client
        .enter(move || command.output())
        .expect("psql starts")
}

/// Runs pgbench from the client's machine.
pub(crate) fn pgbench(lab: &Lab, host: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(postgres_program("pgbench"));
    command
        .args(["-h", host, "-U", "postgres"])
        .args(arguments)
        .arg("postgres")
        .current_dir("/");
    lab.client
        .enter(move || command.output())
        .expect("pgbench starts")
}

/// Fails the test with the program's output.
#[track_caller]
pub(crate) fn success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The name of the node that answers an HTTP request through the balancer.
pub(crate) fn http_through_lb(lab: &Lab, port: u16) -> String {
    let address = format!("{LB_ADDRESS}:{port}").parse().expect("an address");
    let (status, body) = lab
        .client
        .enter(|| http_get(address, "/"))
        .expect("answered through the balancer");
    assert_eq!(status, 200);
    body.trim().to_owned()
}

/// The name of the node that answers an HTTPS request through the balancer.
pub(crate) fn https_through_lb(lab: &Lab) -> String {
    let mut command = Command::new("bash");
    command.args([
        "-c",
        &format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | \
             timeout 20 openssl s_client -connect {LB_ADDRESS}:{KUBE_API} -quiet 2>/dev/null"
        ),
    ]);
    let output = lab
        .client
        .enter(move || command.output())
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("HTTP/1.1 200"), "{text:?}");
    text.lines().last().unwrap_or_default().to_owned()
}
