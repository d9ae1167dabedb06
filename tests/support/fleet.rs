//! Hosts lab01 to lab08 and a dead one, lab09, each with a loopback address of its own, for tools
//! that run commands on many hosts.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::{LABSH, Labshd, enroll, labsh_in, program, run, temp_dir, text, tools};

pub const HOSTS: usize = 8;

/// The hosts, which are one labshd with many addresses, and the home directory of a user with a key
/// for each.
pub struct Fleet {
    pub labshd: Labshd,
    home: TempDir,
    /// The dead host's port, bound but not listening.
    _dead: Socket,
}

impl Fleet {
    pub fn start() -> Self {
        let home = temp_dir();
        let programs = home.path().join("bin");
        // labsh-rsh on a gateway needs the keys as well; its HOME comes from the user database.
        let path =
            format!("path = '{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin'", programs.display());
        let labshd = Labshd::launch(&path, |command| {
            let file = PathBuf::from(command.get_args().last().unwrap());
            let addresses: String =
                (1..=HOSTS).map(|host| format!("'{}:0', ", address(host))).collect();
            let configuration = fs::read_to_string(&file).unwrap();
            fs::write(
                &file,
                configuration.replace("listen = [", &format!("listen = [{addresses}")),
            )
            .unwrap();
        });
        let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        dead.bind(&SocketAddrV4::new(address(HOSTS + 1), 0).into()).unwrap();
        let dead_port = dead.local_addr().unwrap().as_socket().unwrap().port();

        let mut configuration = String::from("[defaults]\nkey = \"test\"\n");
        for host in 1..=HOSTS + 1 {
            let (name, address) = (format!("lab{host:02}"), address(host));
            let port = if host > HOSTS {
                dead_port
            } else {
                enroll(labshd.path(), "test", &name);
                let line = labshd.log().wait_for(&format!("listening address={address}:"));
                line.rsplit(':').next().unwrap().trim().parse().unwrap()
            };
            configuration += &format!("[hosts.{name}]\naddress = \"{address}\"\nport = {port}\n");
        }
        labshd.reload();
        // The key is enrolled for the dead host, like for a machine that is switched off.
        run(labsh_in(labshd.path()).args(["key", "enroll", "test", "--host", "lab09"]));
        fs::write(labshd.file("config/labsh/config.toml"), configuration).unwrap();

        let fleet = Self { labshd, home, _dead: dead };
        fleet.furnish(&programs);
        fleet
    }

    fn furnish(&self, programs: &Path) {
        fs::create_dir_all(self.path().join(".config")).unwrap();
        symlink(self.labshd.path().join("config/labsh"), self.path().join(".config/labsh"))
            .unwrap();
        symlink(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations"),
            self.path().join("integrations"),
        )
        .unwrap();
        fs::create_dir(programs).unwrap();
        let (built, config) =
            (Path::new(LABSH).parent().unwrap(), self.labshd.path().join("config"));
        for program in ["labsh", "labsh-rsh"] {
            let file = programs.join(program);
            let script = format!(
                "#!/bin/sh\nLABSH_KEEP=off XDG_CONFIG_HOME='{}' exec '{}' \"$@\"\n",
                config.display(),
                built.join(program).display()
            );
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// The home directory, where recipes run.
    pub fn path(&self) -> &Path {
        self.home.path()
    }

    /// A bash script in the home directory, with labsh and the tool in PATH.
    pub fn shell(&self, tool: &Path, script: &str) -> Command {
        let mut command = program("bash");
        let path = tools::search_path_after(&[&self.path().join("bin"), tool.parent().unwrap()]);
        command.args(["-euc", script]).current_dir(self.path()).env("PATH", path);
        command.env("HOME", self.path()).stdin(Stdio::null());
        command
    }

    /// Runs the same to its end.
    pub fn output(&self, tool: &Path, script: &str) -> Output {
        self.shell(tool, script).output().unwrap()
    }
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 10 + host as u8)
}

/// The lines of an output, sorted, since hosts answer in any order.
pub fn sorted_lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = text(bytes).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
