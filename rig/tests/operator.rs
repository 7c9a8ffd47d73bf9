//! What an operator sees and does when it is not all repaired by itself.

use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;
use twincell_client::Url;
use twincell_client::device::{Request, execute};
use twincell_rig::cell::{Cell, Shape, binary, signal, wait_until_gone};
use twincell_rig::wait_for;

const USAGE: i32 = 2;
const CONFLICT: i32 = 5;
const REFUSED: i32 = 6;
const UNREACHABLE: i32 = 4;

fn small() -> Shape {
    Shape {
        disks: 4,
        disk_size: "64M",
        cache: "4M",
    }
}

fn through(cell: &Cell, lun: &Value, controller: &str, request: Request) -> Vec<u8> {
    let url = Url::from_str(&cell.nbd_url(lun, controller)).unwrap();
    let mut device = url.connect(Duration::from_secs(20)).unwrap();
    execute(device.as_mut(), request).unwrap()
}

fn write(cell: &Cell, lun: &Value, controller: &str, start: u64, byte: u8) {
    let data = vec![byte; 8 * 512].into();
    let fua = false;
    through(cell, lun, controller, Request::Write { start, data, fua });
}

fn reads(cell: &Cell, lun: &Value, controller: &str, start: u64, byte: u8) {
    let read = through(cell, lun, controller, Request::Read { start, blocks: 8 });
    assert!(
        read == [byte; 8 * 512],
        "through {controller}: block {start} is not {byte}"
    );
}

/// The NV memory of a controller.
fn memory(cell: &Cell, controller: &str) -> PathBuf {
    let text = std::fs::read_to_string(cell.file()).unwrap();
    let uuid = text.lines().find_map(|l| l.strip_prefix("uuid = ")).unwrap();
    let user = rustix::process::getuid().as_raw();
    PathBuf::from(format!(
        "/dev/shm/twincell-{user}/{}-{controller}.nv",
        uuid.trim_matches('"')
    ))
}

/// The memory of a controller that does not run goes, as it does when its server is replaced.
fn lose_memory(cell: &Cell, controller: &str) {
    std::fs::remove_file(memory(cell, controller)).unwrap();
}

/// B ends, and A goes on without it.
fn leave_a_alone(cell: &Cell) {
    cell.kill("B");
    cell.wait_until("A alone", |s| {
        s["cell"]["mirroring"] == "off" && s["luns"][0]["owner"] == "A"
    });
}

/// Starts one controller and not the other. It ends with the cell.
fn start_only(cell: &Cell, controller: &str) {
    let log = std::fs::File::options()
        .append(true)
        .open(cell.dir().join(controller).join("log"))
        .unwrap();
    let mut command = Command::new("setsid");
    command
        .arg("--fork")
        .arg(binary())
        .args(["controller", "run", "--name", controller])
        .env("TWINCELL_DIR", cell.dir());
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).status();
    assert!(started.unwrap().success());
}

fn kinds(status: &Value) -> Vec<&str> {
    let problems = status["problems"].as_array().unwrap();
    problems.iter().map(|p| p["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_memory_that_does_not_come_back_is_given_up_by_name() {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "8M", "vraid1");
    write(&cell, &lun, "A", 0, 1);
    leave_a_alone(&cell);
    // Acknowledged alone: it is on the disks, and the record says that A's memory may hold more.
    write(&cell, &lun, "A", 100, 2);
    cell.kill("A");
    lose_memory(&cell, "A");

    start_only(&cell, "B");
    let status = cell.wait_until("a call for an operator", |s| {
        s["cell"]["state"] == "failed" && kinds(s).contains(&"awaits_operator")
    });
    assert_eq!(status["cell"]["survives"]["controllers"], 0);
    let next = status["problems"][0]["next"].as_str().unwrap();
    assert!(next.contains("accept-loss A"), "{next}");

    cell.twincell(&["controller", "accept-loss", "A"]).expect(
        REFUSED,
        &["no terminal", "A was in alone", "at most 4M", "data", "--yes"],
    );
    cell.twincell(&["controller", "accept-loss", "B", "--yes"])
        .expect(UNREACHABLE, &["controller A"]);
    let accepted = cell.json(&["controller", "accept-loss", "A", "--yes"]);
    assert_eq!(accepted["loss"]["missing"], "A");
    assert_eq!(accepted["loss"]["luns"], serde_json::json!(["data"]));
    assert_eq!(accepted["loss"]["bytes_max"], 4 << 20);
    reads(&cell, &lun, "B", 0, 1);
    reads(&cell, &lun, "B", 100, 2);
    cell.twincell(&["controller", "accept-loss", "A", "--yes"])
        .expect(CONFLICT, &["does not wait"]);
    let events = cell.json(&["events"]);
    let accepted = |e: &&Value| e["kind"] == "loss_accepted" && e["controller"] == "B";
    assert_eq!(events["events"].as_array().unwrap().iter().filter(accepted).count(), 1);

    // The controller that takes the place of A comes with nothing.
    cell.bring_back();
    reads(&cell, &lun, "A", 100, 2);
    assert_eq!(cell.status()["problems"], serde_json::json!([]));
}

#[test]
fn a_memory_that_comes_back_is_not_given_up() {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "8M", "vraid1");
    leave_a_alone(&cell);
    write(&cell, &lun, "A", 0, 7);
    cell.kill("A");
    start_only(&cell, "B");
    cell.wait_until("a call for an operator", |s| kinds(s).contains(&"awaits_operator"));
    start_only(&cell, "A");
    cell.wait_until_mirrored();
    cell.twincell(&["controller", "accept-loss", "A", "--yes"])
        .expect(CONFLICT, &["does not wait"]);
    reads(&cell, &lun, "B", 0, 7);
}

/// The controller that was in alone is back with an empty memory, and so is its partner: the memory that is missing is its own.
#[test]
fn a_memory_that_was_lost_where_both_run_is_given_up() {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "8M", "vraid1");
    leave_a_alone(&cell);
    write(&cell, &lun, "A", 0, 1);
    cell.kill("A");
    lose_memory(&cell, "A");
    start_only(&cell, "A");
    start_only(&cell, "B");
    let status = cell.wait_until("a call for an operator", |s| kinds(s).contains(&"awaits_operator"));
    let next = status["problems"][0]["next"].as_str().unwrap();
    assert!(next.contains("accept-loss A"), "{next}");
    let accepted = cell.json(&["controller", "accept-loss", "A", "--yes"]);
    assert_eq!(
        (&accepted["loss"]["missing"], &accepted["loss"]["survivor"]),
        (&"A".into(), &"A".into())
    );
    cell.wait_until_mirrored();
    reads(&cell, &lun, "B", 0, 1);
    assert_eq!(cell.status()["problems"], serde_json::json!([]));
}

#[test]
fn a_controller_is_replaced_by_an_empty_one() {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "8M", "vraid1");
    write(&cell, &lun, "A", 0, 3);
    cell.kill("A");
    lose_memory(&cell, "A");
    // Whatever else it had on its machine is gone, too.
    std::fs::remove_dir_all(cell.dir().join("A")).unwrap();
    std::fs::create_dir(cell.dir().join("A")).unwrap();
    let status = cell.wait_until("B alone", |s| {
        s["cell"]["mirroring"] == "off" && s["luns"][0]["owner"] == "B"
    });
    assert_eq!(kinds(&status), ["controller_stopped", "write_through"]);
    reads(&cell, &lun, "B", 0, 3);
    write(&cell, &lun, "B", 8, 4);
    cell.bring_back();
    reads(&cell, &lun, "A", 0, 3);
    reads(&cell, &lun, "A", 8, 4);
    let events = cell.json(&["events"]);
    let kinds: Vec<&str> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["controller"] == "B")
        .map(|e| e["kind"].as_str().unwrap())
        .collect();
    let story = [
        "noticed",
        "ballot_begun",
        "ballot_won",
        "fenced",
        "resolved",
        "serving",
        "partner_joins",
        "mirrored",
    ];
    assert!(kinds.ends_with(&story), "{kinds:?}");
}

#[test]
fn events_are_read_when_nobody_runs_and_followed_while_they_happen() {
    let cell = Cell::start(small());
    let mut follower = Command::new(binary());
    follower
        .args(["events", "--follow", "--json"])
        .env("TWINCELL_DIR", cell.dir());
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    cell.kill("A");
    cell.wait_until("B alone", |s| s["cell"]["mirroring"] == "off");
    cell.kill("B");
    let events = cell.json(&["events"]);
    let events = events["events"].as_array().unwrap();
    let times: Vec<u64> = events.iter().map(|e| e["time_ms"].as_u64().unwrap()).collect();
    assert!(times.is_sorted());
    let takeover = events.iter().rfind(|e| e["takeover"].is_object()).unwrap();
    assert_eq!(
        (&takeover["controller"], &takeover["kind"]),
        (&"B".into(), &"serving".into())
    );
    let of = |step: &str| takeover["takeover"][step].as_u64().unwrap();
    assert!(
        of("ballot_ms") <= of("fence_ms") && of("fence_ms") <= of("resolve_ms") && of("resolve_ms") <= of("serve_ms")
    );

    let mut followed = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    for event in events {
        line.clear();
        std::io::BufRead::read_line(&mut followed, &mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["schema"], 1);
        assert!(
            events.contains(&without_schema(&line)),
            "{line} is not among the events, such as {event}"
        );
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    let status = cell.status();
    assert_eq!(kinds(&status), ["controller_ended", "controller_ended"]);
}

fn without_schema(line: &Value) -> Value {
    let mut line = line.clone();
    line.as_object_mut().unwrap().remove("schema");
    line
}

#[test]
fn a_fence_that_cannot_work_here_is_refused_at_start() {
    let cell = Cell::create(small());
    let text = std::fs::read_to_string(cell.file()).unwrap();
    let fence =
        |lines: &str| std::fs::write(cell.file(), text.replace("disks = [", &format!("{lines}\ndisks = ["))).unwrap();
    let run = || cell.twincell(&["controller", "run", "--name", "A"]);
    fence("fence = \"pr\"");
    run().expect(REFUSED, &["disks/0", "a file has no persistent reservations"]);
    fence("fence = \"self\"\nwatchdog = \"/dev/null\"");
    run().expect(REFUSED, &["/dev/null", "no watchdog"]);
    fence("fence = \"self\"");
    run().expect(USAGE, &["watchdog", "accept_window"]);
    fence("fence = \"self\"\naccept_window = true");
    cell.bring_back();
    cell.kill("A");
    cell.wait_until("B alone", |s| {
        s["cell"]["mirroring"] == "off" && !kinds(s).contains(&"controller_deciding")
    });
    let events = cell.json(&["events"]);
    let takeover = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|e| e["takeover"].is_object())
        .unwrap();
    let ms = |step: &str| takeover["takeover"][step].as_u64().unwrap();
    assert!(
        ms("fence_ms") - ms("ballot_ms") >= 2000,
        "the grant was not waited out: {takeover}"
    );
}

#[test]
fn the_size_of_the_cache_changes_only_while_there_is_no_image() {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "8M", "vraid1");
    write(&cell, &lun, "A", 0, 9);
    cell.kill("A");
    cell.kill("B");
    cell.edit("cache = \"4M\"", "cache = \"8M\"");
    let started = cell.twincell(&["cell", "start"]);
    started.expect(UNREACHABLE, &["a cache of 4194304 bytes", "cell stop"]);
    cell.edit("cache = \"8M\"", "cache = \"4M\"");
    cell.bring_back();
    reads(&cell, &lun, "B", 0, 9);
    cell.twincell(&["cell", "stop"]).success();
    for controller in ["A", "B"] {
        let memory = memory(&cell, controller);
        assert!(!memory.exists() && !memory.with_extension("nv.lock").exists());
    }
    cell.edit("cache = \"4M\"", "cache = \"8M\"");
    cell.bring_back();
    reads(&cell, &lun, "A", 0, 9);
}

#[test]
fn controllers_do_not_keep_what_their_starter_had_open() {
    let cell = Cell::create(small());
    let marker = cell.scratch().join("marker");
    let script = format!("exec 9>{} && exec {} cell start", marker.display(), binary().display());
    let mut shell = Command::new("sh");
    let started = shell.args(["-c", &script]).env("TWINCELL_DIR", cell.dir());
    let started = started.stdout(Stdio::null()).status();
    assert!(started.unwrap().success());
    for controller in ["A", "B"] {
        let pid = cell.pid(controller).unwrap();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open: Vec<PathBuf> = open
            .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
            .collect();
        assert!(open.len() > 3 && !open.contains(&marker), "{open:?}");
    }
}

/// A cell whose disk 1 was moved elsewhere before its controllers started; its LUN; where the disk was, and where it is.
fn started_without_a_disk() -> (Cell, Value, PathBuf, PathBuf) {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "8M", "vraid1");
    write(&cell, &lun, "A", 0, 5);
    cell.twincell(&["cell", "stop"]).success();
    let (disk, aside) = (cell.dir().join("disks/1"), cell.scratch().join("aside"));
    std::fs::rename(&disk, &aside).unwrap();
    cell.twincell(&["cell", "start"]).success();
    (cell, lun, disk, aside)
}

#[test]
fn a_controller_starts_without_a_disk_that_is_lost() {
    let (cell, lun, disk, aside) = started_without_a_disk();
    let status = cell.wait_until("mirroring with a disk less", |s| s["cell"]["mirroring"] == "on");
    assert_eq!(
        (&status["cell"]["state"], &status["cell"]["survives"]["disks"]),
        (&"degraded".into(), &0.into())
    );
    assert_eq!(status["cell"]["survives"]["controllers"], 1);
    assert!(
        kinds(&status).contains(&"quorum_degraded") && kinds(&status).contains(&"disk_missing"),
        "{status}"
    );
    assert_eq!(cell.json(&["disk", "list"])["disks"][1]["state"], "missing");
    for controller in ["A", "B"] {
        reads(&cell, &lun, controller, 0, 5);
    }
    // Every place of the LUN is written once, so that some of it would go to the lost disk.
    for start in (0..16384).step_by(1024) {
        write(&cell, &lun, "A", start, 6);
    }
    through(&cell, &lun, "A", Request::Flush);
    let events = cell.json(&["events"]);
    let given_up = |e: &&Value| e["kind"] == "disk_missing" && e["event"].as_str().unwrap().contains("disks/1");
    assert!(
        events["events"].as_array().unwrap().iter().any(|e| given_up(&e)),
        "{events}"
    );
    // One that takes over, and one that comes back, know of it.
    cell.kill("A");
    reads(&cell, &lun, "B", 1024, 6);
    cell.twincell(&["cell", "start"]).success();
    let status = cell.wait_until("mirroring again", |s| s["cell"]["mirroring"] == "on");
    assert_eq!(status["luns"][0]["state"], "degraded");
    reads(&cell, &lun, "A", 1024, 6);
    // It is found again, and made level: then the other of its pair may go.
    std::fs::rename(&aside, &disk).unwrap();
    until_all_disks_work(&cell);
    cell.twincell(&["cell", "stop"]).success();
    std::fs::rename(cell.dir().join("disks/0"), &aside).unwrap();
    cell.twincell(&["cell", "start"]).success();
    until_mirrored(&cell);
    for start in (1024..16384).step_by(1024) {
        reads(&cell, &lun, "B", start, 6);
    }
}

/// Whatever else is wrong.
fn until_mirrored(cell: &Cell) {
    cell.wait_until("mirroring", |s| s["cell"]["mirroring"] == "on");
}

fn until_all_disks_work(cell: &Cell) {
    cell.wait_until("all disks in order", |s| s["cell"]["survives"]["disks"] == 1);
    let listed = cell.json(&["disk", "list"]);
    let disks = listed["disks"].as_array().unwrap();
    assert!(
        disks.iter().all(|d| d["state"] == "normal" && d["works"] == true),
        "{listed}"
    );
}

/// Nothing was written that it should have had: it is in order as soon as it is there.
#[test]
fn a_disk_that_comes_after_its_controllers_is_used() {
    let (cell, lun, disk, aside) = started_without_a_disk();
    until_mirrored(&cell);
    assert_eq!(cell.json(&["disk", "list"])["disks"][1]["state"], "missing");
    std::fs::rename(&aside, &disk).unwrap();
    until_all_disks_work(&cell);
    let events = cell.json(&["events"]);
    let given_up = |e: &Value| e["kind"] == "disk_missing";
    assert!(!events["events"].as_array().unwrap().iter().any(given_up), "{events}");
    // Its lock bytes are held as those of the others are: a takeover finds it so.
    cell.kill("A");
    reads(&cell, &lun, "B", 0, 5);
    cell.twincell(&["cell", "start"]).success();
    until_mirrored(&cell);
    until_all_disks_work(&cell);
}

/// A controller that does not serve ends when it is asked to stop, and its memory stays. Whoever asked is not told that
/// everything is on the disks.
#[test]
fn who_stops_what_does_not_serve_hears_what_is_only_in_memory() {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "8M", "vraid1");
    write(&cell, &lun, "A", 0, 1);
    // Both at once: the record names both, so A waits for its partner.
    let pids = ["A", "B"].map(|c| cell.pid(c).unwrap());
    for pid in pids {
        signal(pid, Signal::KILL);
    }
    pids.into_iter().for_each(wait_until_gone);
    start_only(&cell, "A");
    // Before it has opened all that it needs it does not answer.
    let stopped = wait_for("the end of A", Duration::from_secs(3), || {
        cell.twincell(&["cell", "stop"]).ok()
    });
    assert!(memory(&cell, "A").exists(), "A went on alone, and this shows nothing");
    assert!(
        !stopped.stdout.contains("everything is on its disks"),
        "the memory of A is there, and may have what the disks lack:\n{}",
        stopped.stdout
    );
}

/// B's cell.toml has another cache than A's: one of both serves, and it is told why the other does not come in.
#[test]
fn controllers_with_different_caches_are_told_so() {
    let cell = Cell::create(small());
    let of_b = cell.dir().join("cell-B.toml");
    let text = std::fs::read_to_string(cell.file()).unwrap();
    std::fs::write(&of_b, text.replace("cache = \"4M\"", "cache = \"8M\"")).unwrap();
    let run = |name: &str, file: &Path| {
        let mut command = Command::new(binary());
        command
            .args(["controller", "run", "--detach", "--name", name, "--config"])
            .arg(file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children = [run("A", &cell.file()), run("B", &of_b)];
    wait_for("the event", Duration::from_secs(30), || {
        let events = cell.twincell(&["events"]).success().stdout;
        let told = events.contains("than its partner, whose is 8M") || events.contains("than its partner, whose is 4M");
        told.then_some(()).ok_or(events)
    });
    cell.wait_until("one that serves", |s| s["cell"]["state"] == "degraded");
    for child in &mut children {
        signal(child.id(), Signal::TERM);
        child.wait().unwrap();
    }
}
