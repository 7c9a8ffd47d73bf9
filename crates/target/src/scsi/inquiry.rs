//! INQUIRY: standard data and vital product data pages (SPC-4, 6.6 and 7.8; SBC-3, 6.6)

use super::identity::{PRODUCT, REVISION, VENDOR, naa, relative_target_port, target_port_group};
use super::sense::Sense;
use crate::session::View;
use twincell_core::ids::{ATOMIC_BLOCKS, BUFFER_BLOCKS, Uuid};
use twincell_core::manage::LunView;

/// The most blocks that one command may transfer: 8 MiB.
pub const TRANSFER_BLOCKS_MAX: u32 = 16384;

/// Bytes of the standard data.
const STANDARD_BYTES: usize = 96;
/// SAM-5, iSCSI, SPC-4 and SBC-3, each without a claim to a revision.
const VERSION_DESCRIPTORS: [u16; 4] = [0x00a0, 0x0960, 0x0460, 0x04c0];
/// Peripheral qualifier 011b, device type 1Fh: there can be no such logical unit.
const NO_PERIPHERAL: u8 = 0x7f;

/// Appends the standard data of `lun`, or those that say that there is none.
pub fn standard(lun: Option<&LunView>, out: &mut Vec<u8>) {
    let mut data = [0; STANDARD_BYTES];
    data[0] = if lun.is_some() { 0 } else { NO_PERIPHERAL };
    data[2] = 0x06; // SPC-4
    data[3] = 0x12; // HISUP, response data format 2
    data[4] = (STANDARD_BYTES - 5) as u8;
    data[5] = 0x10; // TPGS: implicit asymmetric access
    data[6] = 0x10; // MULTIP: two ports
    data[7] = 0x02; // CMDQUE
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(PRODUCT);
    data[32..36].copy_from_slice(REVISION);
    for (place, descriptor) in data[58..].chunks_exact_mut(2).zip(VERSION_DESCRIPTORS) {
        place.copy_from_slice(&descriptor.to_be_bytes());
    }
    out.extend_from_slice(&data);
}

type Page = fn(&LunView, &View, &mut Vec<u8>);

/// The pages and what follows the header of each, in order of their codes.
const PAGES: [(u8, Page); 7] = [
    (0x00, supported_pages),
    (0x80, unit_serial_number),
    (0x83, device_identification),
    (0x86, extended_inquiry_data),
    (0xb0, block_limits),
    (0xb1, block_device_characteristics),
    (0xb2, logical_block_provisioning),
];

/// Appends a vital product data page.
///
/// # Errors
/// INVALID FIELD IN CDB for a page that is not supported.
pub fn vital_product_data(code: u8, lun: &LunView, view: &View, out: &mut Vec<u8>) -> Result<(), Sense> {
    let (_, page) = PAGES
        .iter()
        .find(|(c, _)| *c == code)
        .ok_or(Sense::invalid_field_in_cdb(2))?;
    let start = out.len();
    out.extend_from_slice(&[0, code, 0, 0]);
    page(lun, view, out);
    let length = (out.len() - start - 4) as u16;
    out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn supported_pages(_: &LunView, _: &View, out: &mut Vec<u8>) {
    out.extend(PAGES.iter().map(|(code, _)| code));
}

fn unit_serial_number(lun: &LunView, _: &View, out: &mut Vec<u8>) {
    out.extend_from_slice(serial_number(lun.uuid).as_bytes());
}

fn serial_number(uuid: Uuid) -> String {
    uuid.to_string()
}

/// What a designator names (SPC-4, table 604).
#[derive(Clone, Copy)]
enum Association {
    LogicalUnit = 0,
    TargetPort = 1,
    TargetDevice = 2,
}

const BINARY: u8 = 1;
const ASCII: u8 = 2;
const UTF_8: u8 = 3;
/// Protocol identifier of iSCSI, in the upper half of a designator's first byte.
const ISCSI: u8 = 0x50;
/// The protocol identifier is valid.
const PIV: u8 = 0x80;

fn designator(association: Association, code_set: u8, kind: u8, name: &[u8], out: &mut Vec<u8>) {
    let (protocol, piv) = match association {
        Association::LogicalUnit => (0, 0),
        Association::TargetPort | Association::TargetDevice => (ISCSI, PIV),
    };
    let flags = piv | (association as u8) << 4 | kind;
    out.extend_from_slice(&[protocol | code_set, flags, 0, name.len() as u8]);
    out.extend_from_slice(name);
}

/// A SCSI name string ends with a zero byte and is a multiple of 4 bytes long (SPC-4, 7.8.6.11).
fn scsi_name_string(association: Association, name: String, out: &mut Vec<u8>) {
    let mut name = name.into_bytes();
    name.resize((name.len() + 1).next_multiple_of(4), 0);
    designator(association, UTF_8, 8, &name, out);
}

fn device_identification(lun: &LunView, view: &View, out: &mut Vec<u8>) {
    use Association::{LogicalUnit, TargetDevice, TargetPort};
    designator(LogicalUnit, BINARY, 3, &naa(lun.uuid).to_be_bytes(), out);
    let t10 = [VENDOR, serial_number(lun.uuid).as_bytes()].concat();
    designator(LogicalUnit, ASCII, 1, &t10, out);
    let port = relative_target_port(view.controller).to_be_bytes();
    designator(TargetPort, BINARY, 4, &[0, 0, port[0], port[1]], out);
    let group = target_port_group(view.controller).to_be_bytes();
    designator(TargetPort, BINARY, 5, &[0, 0, group[0], group[1]], out);
    let tag = target_port_group(view.controller);
    scsi_name_string(TargetPort, format!("{},t,0x{tag:04x}", view.target_name), out);
    scsi_name_string(TargetDevice, view.target_name.clone(), out);
}

fn extended_inquiry_data(_: &LunView, _: &View, out: &mut Vec<u8>) {
    let mut page = [0; 60];
    page[1] = 0x07; // HEADSUP, ORDSUP, SIMPSUP
    page[2] = 0x01; // V_SUP: a volatile cache
    out.extend_from_slice(&page);
}

fn block_limits(_: &LunView, _: &View, out: &mut Vec<u8>) {
    let mut page = [0; 60];
    page[2..4].copy_from_slice(&(BUFFER_BLOCKS as u16).to_be_bytes()); // optimal transfer length granularity
    page[4..8].copy_from_slice(&TRANSFER_BLOCKS_MAX.to_be_bytes()); // maximum transfer length
    page[8..12].copy_from_slice(&ATOMIC_BLOCKS.to_be_bytes()); // optimal transfer length
    out.extend_from_slice(&page);
}

fn block_device_characteristics(_: &LunView, _: &View, out: &mut Vec<u8>) {
    let mut page = [0; 60];
    page[1] = 1; // medium rotation rate: it does not rotate
    out.extend_from_slice(&page);
}

fn logical_block_provisioning(_: &LunView, _: &View, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]); // fully provisioned
}
