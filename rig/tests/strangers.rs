//! Connections of those who never say who they are: on which nothing is ever said, or much is asked and nothing read.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::str::FromStr;
use std::time::Duration;
use twincell_client::Url;
use twincell_client::device::{Request, execute};
use twincell_rig::cell::{Cell, Shape, own_memory};

/// More than a controller has room for.
const STRANGERS: usize = 400;
/// How long a host waits for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// Hosts that say who they are have room all the same, and those that are connected keep it.
#[test]
fn who_says_nothing_keeps_no_host_out() {
    let cell = Cell::start(Shape::default());
    let lun = cell.lun("data", "8M", "vraid1");
    let (portals, urls) = (
        ["iscsi_portals", "nbd_portals"],
        [cell.iscsi_url(&lun, "A"), cell.nbd_url(&lun, "A")],
    );
    let mut first = Url::from_str(&urls[0]).unwrap().connect(LIMIT).unwrap();
    for portal in portals {
        let portal = cell.portal("A", portal);
        let strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| TcpStream::connect(&portal).unwrap()).collect();
        for (url, byte) in urls.iter().zip(1..) {
            let mut device = Url::from_str(url).unwrap().connect(LIMIT).unwrap();
            let (start, blocks, data) = (0, 8, vec![byte; 8 * 512]);
            let write = Request::Write {
                start,
                data: data.clone().into(),
                fua: false,
            };
            execute(device.as_mut(), write).unwrap();
            let read = execute(first.as_mut(), Request::Read { start, blocks }).unwrap();
            assert!(read == data, "what was written through {url} is not there");
        }
        drop(strangers);
    }
}

/// How many lists are asked for, over how many connections.
const LISTS: usize = 16_384;
const CONNECTIONS: usize = 4;
/// LUNs with the longest names that there are: what is to be in each list.
const LUNS: usize = 32;
/// What the controller may need for them, when it would be 48 MiB if it answered all.
const GROWTH_MAX: u64 = 8 << 20;

/// A list costs a hundred times as much as to ask for it. Who reads none gets few, and the others go on.
#[test]
fn who_asks_for_lists_and_reads_none_costs_no_memory() {
    let cell = Cell::start(Shape::default());
    let luns: Vec<Value> = (0..LUNS).map(|n| cell.lun(&format!("{n:064}"), "2M", "none")).collect();
    let (portal, pid) = (cell.portal("A", "nbd_portals"), cell.pid("A").unwrap());
    let before = own_memory(pid);
    // The client's flags, and then options: 3 lists all exports, 2 ends the connection.
    let list = [b"IHAVEOPT".as_slice(), &[0, 0, 0, 3], &[0; 4]].concat();
    let end = [b"IHAVEOPT".as_slice(), &[0, 0, 0, 2], &[0; 4]].concat();
    let count = LISTS / CONNECTIONS;
    let all = [[0, 0, 0, 3].as_slice(), &list.repeat(count), &end].concat();
    let connect = |_| {
        let mut stranger = TcpStream::connect(&portal).unwrap();
        stranger.set_read_timeout(Some(LIMIT)).unwrap();
        stranger.write_all(&all).unwrap();
        stranger
    };
    let strangers: Vec<TcpStream> = (0..CONNECTIONS).map(connect).collect();
    let mut device = Url::from_str(&cell.nbd_url(&luns[0], "A"))
        .unwrap()
        .connect(LIMIT)
        .unwrap();
    let grown = own_memory(pid).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes are kept for those who read nothing");
    execute(device.as_mut(), Request::Read { start: 0, blocks: 1 }).unwrap();

    // All comes when it is read: the greeting, 88 bytes for a LUN and 20 for the end of each list, and the last word.
    let expected = 18 + count * (LUNS * (24 + 64) + 20) + 20;
    for mut stranger in strangers {
        let mut got = Vec::new();
        stranger.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), expected);
    }
    let grown = own_memory(pid).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes are still kept");
}
