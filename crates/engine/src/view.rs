//! What hosts may know of the cell, made from what the core knows.

use crate::settings::Settings;
use std::net::SocketAddr;
use twincell_core::Core;
use twincell_core::cell::record::Mode;
use twincell_core::manage::LunView;
use twincell_target::session::View;

/// The view of a cell of which nothing is known yet.
pub(crate) fn first(settings: &Settings) -> View {
    let names = |addresses: &Vec<SocketAddr>| addresses.iter().map(SocketAddr::to_string).collect();
    View {
        controller: settings.controller,
        cell_name: settings.cell_name.clone(),
        target_name: settings.target_name.clone(),
        portals: settings.iscsi.each_ref().map(names),
        luns: Vec::new(),
        luns_generation: 0,
        paths_generation: 0,
        partner_in: false,
    }
}

/// The view now; its generations say in what it differs from the one before.
pub(crate) fn next(before: &View, core: &Core) -> View {
    let luns: Vec<LunView> = core.luns().collect();
    let partner_in = core.cell_view().record.is_some_and(|record| record.mode == Mode::Both);
    let luns_changed = !luns.iter().map(what_it_is).eq(before.luns.iter().map(what_it_is));
    let paths_changed =
        partner_in != before.partner_in || !luns.iter().map(where_it_is).eq(before.luns.iter().map(where_it_is));
    View {
        luns_generation: before.luns_generation + u64::from(luns_changed),
        paths_generation: before.paths_generation + u64::from(paths_changed),
        luns,
        partner_in,
        ..before.clone()
    }
}

fn what_it_is(lun: &LunView) -> impl Eq + use<> {
    (lun.ncae, lun.noid, lun.name, lun.uuid, lun.blocks)
}

fn where_it_is(lun: &LunView) -> impl Eq + use<> {
    (lun.noid, lun.owner, lun.moving)
}
