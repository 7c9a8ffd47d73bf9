//! Both controllers as on two servers: each in mount, PID and network namespaces of its own, sharing the disks and
//! the link and nothing else. Neither sees the other's process, so the fence is the lock on the disks alone.

use rustix::process::Signal;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use twincell_rig::cell::{Cell, Shape, binary, signal, twincell_in};
use twincell_rig::image;
use twincell_rig::tool::run;
use twincell_rig::wait_for;

const LIMIT: Duration = Duration::from_secs(60);
const IMAGE_MIB: u64 = 64;

/// A server: namespaces that a process of its own keeps alive, so that its memory outlives the controller.
struct Server {
    name: &'static str,
    net: String,
    keeper: Child,
}

/// The addresses of both servers, derived from this process so that runs do not meet.
struct Network {
    tag: u32,
}

impl Network {
    fn new() -> Network {
        Network {
            tag: std::process::id() % 250,
        }
    }

    /// Where hosts reach a server.
    fn host(&self, server: usize) -> String {
        format!("10.{}.{server}.2", self.tag)
    }

    /// This end of the way to a server.
    fn here(&self, server: usize) -> String {
        format!("10.{}.{server}.1", self.tag)
    }

    /// A server's end of the link.
    fn link(&self, server: usize) -> String {
        format!("10.{}.9.{}", self.tag, server + 1)
    }

    fn namespace(&self, server: usize) -> String {
        format!("twincell{}{}", self.tag, ["a", "b"][server])
    }
}

fn ip(args: &str) {
    run("ip", &args.split(' ').collect::<Vec<_>>(), LIMIT).success();
}

impl Network {
    /// Two network namespaces, a wire between them, and a wire from here to each.
    fn build(&self) {
        let tag = self.tag;
        for n in 0..2 {
            let net = self.namespace(n);
            ip(&format!("netns add {net}"));
            ip(&format!("link add tch{tag}{n} type veth peer name host netns {net}"));
            ip(&format!("addr add {}/24 dev tch{tag}{n}", self.here(n)));
            ip(&format!("link set tch{tag}{n} up"));
            ip(&format!("-n {net} addr add {}/24 dev host", self.host(n)));
            ip(&format!("-n {net} link set host up"));
            ip(&format!("-n {net} link set lo up"));
        }
        let [a, b] = [self.namespace(0), self.namespace(1)];
        ip(&format!("-n {a} link add mirror type veth peer name mirror netns {b}"));
        for n in 0..2 {
            let net = self.namespace(n);
            ip(&format!("-n {net} addr add {}/24 dev mirror", self.link(n)));
            ip(&format!("-n {net} link set mirror up"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for n in 0..2 {
            // Its wires go with it; it may not be there if building failed.
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(n)])
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Server {
    fn new(name: &'static str, net: &str, cell: &Cell) -> Server {
        let dir = cell.dir();
        let partner = if name == "A" { "B" } else { "A" };
        let hidden = dir.join(partner);
        let script = format!(
            "mount -t tmpfs none {} && mount -t tmpfs none /dev/shm && echo ready && exec sleep infinity",
            hidden.display()
        );
        let mut unshare = Command::new("ip");
        unshare.args([
            "netns",
            "exec",
            net,
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        unshare.args(["sh", "-c", &script]);
        let mut keeper = unshare
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip netns exec");
        let mut ready = [0; 6];
        let stdout = keeper.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(stdout, &mut ready).expect("namespaces are made");
        Server {
            name,
            net: net.to_owned(),
            keeper,
        }
    }

    /// The process that is 1 in the namespaces.
    fn init(&self) -> String {
        let unshare = self.keeper.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let children = std::fs::read_to_string(children).expect("the keeper's children");
        children
            .split_whitespace()
            .next()
            .unwrap_or_else(|| panic!("{} has no process", self.net))
            .to_owned()
    }

    fn start(&self, cell: &Cell) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(cell.dir().join(self.name).join("log"));
        let log = log.expect("a log");
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.init(), "--mount", "--pid", "--net", "--"]);
        enter
            .arg(binary())
            .args(["controller", "run", "--name", self.name, "--config"])
            .arg(cell.file());
        enter
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nsenter")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // With the first process of a PID namespace all of it ends.
        signal(self.keeper.id(), Signal::KILL);
        let _ = self.keeper.wait();
    }
}

#[test]
fn two_servers_that_share_only_disks_and_the_link() {
    let network = Network::new();
    network.build();
    let cell = Cell::create_with(
        Shape {
            disks: 5,
            disk_size: "256M",
            cache: "16M",
        },
        &[
            ("--iscsi-a", format!("{}:3260", network.host(0))),
            ("--iscsi-b", format!("{}:3260", network.host(1))),
            ("--nbd-a", format!("{}:10809", network.host(0))),
            ("--nbd-b", format!("{}:10809", network.host(1))),
            ("--link-a", format!("{}:7000", network.link(0))),
            ("--link-b", format!("{}:7000", network.link(1))),
        ],
    );
    let servers = [
        Server::new("A", &network.namespace(0), &cell),
        Server::new("B", &network.namespace(1), &cell),
    ];
    let mut processes = servers.each_ref().map(|s| Some(s.start(&cell)));
    cell.wait_until_mirrored();

    let lun = cell.lun("data", &format!("{IMAGE_MIB}M"), "vraid1");
    let image = image::ext4(cell.scratch(), IMAGE_MIB);
    let owner = cell.owner("data");
    let (dead, alive) = if owner == "A" { (0, "B") } else { (1, "A") };
    image::copy_over_nbd(&image, &cell.nbd_url(&lun, &owner));

    cell.kill(&owner);
    processes[dead].take().expect("it ran").wait().expect("nsenter");
    image::same_over_nbd(&image, &cell.nbd_url(&lun, alive));

    processes[dead] = Some(servers[dead].start(&cell));
    cell.wait_until_mirrored();
    image::same_over_nbd(&image, &cell.nbd_url(&lun, &owner));

    twincell_in(&cell.dir(), &["cell", "stop"]).success();
    for process in processes.iter_mut().flatten() {
        wait_for("the end of nsenter", LIMIT, || match process.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}
