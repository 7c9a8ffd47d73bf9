//! The NBD client against other servers (nbdkit, qemu-nbd), and other clients (nbdcopy, nbdinfo, qemu-img, fio) against
//! the array's NBD session. Those programs must be installed: `apt install nbdkit qemu-utils libnbd-bin fio`.

mod support;

use std::time::Duration;

use support::{Daemon, Fault, Medium, Server, free_port, run, wait_for};
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions};
use twincell_client::multipath::Timing;

/// Loads a LUN of 64 MiB for a moment and verifies it. Nothing is read while it is written: a file behind a page cache
/// may show half of a block then.
fn check(url: &Url) {
    let mut checker = Checker::start(Options {
        urls: vec![url.clone()],
        writers: 4,
        readers: 0,
        regions: Regions::Own,
        region: 0..(64 << 20) / 512,
        seed: 1,
        history: None,
        timing: Timing::default(),
    })
    .unwrap();
    wait_for("500 writes", || {
        (!checker.is_running() || checker.report().writes >= 500).then_some(())
    });
    checker.stop();
    let report = checker.verify_all(url).unwrap();
    assert!(report.is_sound() && report.writes >= 500, "{report}");
    assert!(report.flushes > 0, "{report}");
}

fn url_when_up(port: u16, export: &str) -> Url {
    let url: Url = format!("nbd://127.0.0.1:{port}/{export}").parse().unwrap();
    wait_for(&url.to_string(), || url.connect(Duration::from_secs(1)).ok());
    url
}

#[test]
fn our_client_with_nbdkit() {
    let port = free_port();
    let _server = Daemon::start(
        "nbdkit",
        &["-f", "-p", &port.to_string(), "-i", "127.0.0.1", "memory", "64M"],
    );
    check(&url_when_up(port, ""));
}

#[test]
fn our_client_with_qemu_nbd() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let port = free_port();
    let args = [
        "-f",
        "raw",
        "-b",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-x",
        "vol",
        "-t",
        "-e",
        "32",
    ];
    let image = image.to_str().unwrap();
    let _server = Daemon::start("qemu-nbd", &[&args[..], &[image]].concat());
    check(&url_when_up(port, "vol"));
}

#[test]
fn nbdinfo_understands_our_session() {
    let medium = Medium::new(4 << 20);
    let server = Server::start(&medium, Fault::None);
    let uri = server.url().to_string();
    let said = run("nbdinfo", &[&uri]);
    for line in [
        "export-size: 4194304",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "block_size_minimum: 512",
    ] {
        assert!(said.contains(line), "{line} is not in:\n{said}");
    }
    let list = run("nbdinfo", &["--list", &format!("nbd://{}", server.address)]);
    assert!(list.contains("export=\"vol\""), "{list}");
}

#[test]
fn nbdcopy_and_qemu_img_copy_there_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let data: Vec<u8> = (0..8 << 20)
        .map(|i: u32| (i.wrapping_mul(2654435761) >> 24) as u8)
        .collect();
    std::fs::write(file("in"), &data).unwrap();
    for (there, back) in [("nbdcopy", "qemu-img"), ("qemu-img", "nbdcopy")] {
        let server = Server::start(&Medium::new(data.len()), Fault::None);
        let uri = server.url().to_string();
        let out = file("out");
        let copy = |program: &str, from: &str, to: &str| match program {
            "nbdcopy" => run("nbdcopy", &[from, to]),
            _ => run(
                "qemu-img",
                &["convert", "-n", "-f", "raw", "-O", "raw", "-m", "16", from, to],
            ),
        };
        std::fs::File::create(&out).unwrap().set_len(data.len() as u64).unwrap();
        copy(there, &file("in"), &uri);
        copy(back, &uri, &out);
        assert!(
            std::fs::read(&out).unwrap() == data,
            "{there} there, {back} back: other data"
        );
    }
}

#[test]
fn fio_verifies_what_it_wrote() {
    let server = Server::start(&Medium::new(16 << 20), Fault::None);
    let uri = format!("--uri={}", server.url());
    let common = [
        "--name=x",
        "--ioengine=nbd",
        &uri,
        "--size=16M",
        "--rw=randrw",
        "--bsrange=512-256k",
    ];
    let verify = [
        "--iodepth=32",
        "--verify=crc32c",
        "--do_verify=1",
        "--verify_state_save=0",
        "--fsync=64",
    ];
    let said = run("fio", &[&common[..], &verify].concat());
    assert!(said.contains("err= 0"), "{said}");
}
