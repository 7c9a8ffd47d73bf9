//! Connections that are opened, and on which nothing is ever said.

use std::net::TcpStream;
use std::str::FromStr;
use std::time::Duration;
use twincell_client::Url;
use twincell_client::device::{Request, execute};
use twincell_rig::cell::{Cell, Shape};

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
