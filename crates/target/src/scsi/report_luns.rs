//! REPORT LUNS (SPC-4, 6.33)

use super::lun;
use super::sense::Sense;
use twincell_core::manage::LunView;

/// Appends the list that `select` asks for. There are no well known and no administrative logical units here.
///
/// # Errors
/// INVALID FIELD IN CDB for a list that the standard does not define.
pub fn report(select: u8, luns: &[LunView], out: &mut Vec<u8>) -> Result<(), Sense> {
    let luns = match select {
        0x00 | 0x02 | 0x11 => luns,
        0x01 | 0x10 | 0x12 => &[],
        _ => return Err(Sense::invalid_field_in_cdb(2)),
    };
    out.extend_from_slice(&(luns.len() as u32 * 8).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    for l in luns {
        out.extend_from_slice(&lun::field(l.ncae));
    }
    Ok(())
}
