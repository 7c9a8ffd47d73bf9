//! Login, discovery, text and logout (RFC 7143, sections 6, 11.10 to 11.15)

mod support;

use support::{Host, INITIATOR, Pdu, TARGET, text};
use twincell_target::session::Session;

fn names() -> [String; 2] {
    [format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}")]
}

/// The status of a login with one request.
fn status_of(pdu: &Pdu) -> u16 {
    let mut host = Host::connect();
    let answers = host.exchange(pdu);
    assert_eq!(answers.len(), 1);
    let status = answers[0].login_status();
    assert_eq!(host.session.is_over(), status != 0);
    status
}

#[test]
fn a_login_as_linux_does_it() {
    let mut host = Host::connect();
    let [initiator, target] = names();
    let security = [
        initiator.as_str(),
        "InitiatorAlias=host",
        target.as_str(),
        "SessionType=Normal",
        "AuthMethod=None",
    ];
    let answers = host.exchange(&Host::login_pdu(0, 1, &security));
    let mut expected = [0; 48];
    expected[0] = 0x23;
    expected[1] = 0x81; // T, from security to operational
    expected[7] = 39;
    expected[8..14].copy_from_slice(&[0x80, 1, 2, 3, 4, 5]);
    expected[16..20].copy_from_slice(&[0, 0, 0xab, 0xcd]);
    expected[24..28].copy_from_slice(&[0, 0, 0, 0]); // StatSN
    expected[28..32].copy_from_slice(&[0, 0, 0, 10]); // ExpCmdSN
    expected[32..36].copy_from_slice(&[0, 0, 0, 137]); // MaxCmdSN
    assert_eq!(answers[0].header, expected);
    assert_eq!(answers[0].data, text(&["TargetPortalGroupTag=1", "AuthMethod=None"]));
    assert_eq!(host.session.initiator(), None);

    let operational = [
        "HeaderDigest=None",
        "DataDigest=None",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=0",
        "IFMarker=No",
        "OFMarker=No",
        "ErrorRecoveryLevel=0",
        "InitialR2T=No",
        "ImmediateData=Yes",
        "MaxBurstLength=16776192",
        "FirstBurstLength=262144",
        "MaxOutstandingR2T=1",
        "MaxConnections=1",
        "DataPDUInOrder=Yes",
        "DataSequenceInOrder=Yes",
        "MaxRecvDataSegmentLength=262144",
    ];
    let answers = host.exchange(&Host::login_pdu(1, 3, &operational));
    assert_eq!(answers[0].login_status(), 0);
    assert_eq!(answers[0].flags(), 0x87);
    assert_eq!(answers[0].header[14..16], [0, 1], "TSIH");
    assert_eq!(answers[0].get32(24), 1, "StatSN");
    let mut expected = operational;
    expected[9] = "MaxBurstLength=1048576";
    assert_eq!(answers[0].data, text(&expected));
    assert_eq!(host.session.initiator(), Some((INITIATOR, [0x80, 1, 2, 3, 4, 5])));
}

#[test]
fn keys_may_come_in_pieces() {
    let mut host = Host::connect();
    let lines = text(&[&names()[0], &names()[1], "MaxBurstLength=65536"]);
    let (first, second) = lines.split_at(30);
    let answers = host.exchange(&Host::login_pdu(1, 0, &[]).with(first).set8(1, 0x44));
    assert_eq!((answers[0].flags(), answers[0].data.len()), (0x04, 0));
    let answers = host.exchange(&Host::login_pdu(1, 3, &[]).with(second));
    assert_eq!(answers[0].flags(), 0x87);
    let expected = [
        "TargetPortalGroupTag=1",
        "MaxBurstLength=65536",
        "MaxRecvDataSegmentLength=262144",
    ];
    assert_eq!(answers[0].data, text(&expected));
}

#[test]
fn failures() {
    let [initiator, target] = names();
    let (initiator, target) = (initiator.as_str(), target.as_str());
    let login = |lines: &[&str]| Host::login_pdu(1, 3, lines);
    assert_eq!(status_of(&login(&[initiator, target])), 0);
    assert_eq!(
        status_of(&login(&[initiator, "TargetName=iqn.2026-11.io.twincell:other"])),
        0x0203
    );
    assert_eq!(status_of(&login(&[initiator])), 0x0207, "no target name");
    assert_eq!(status_of(&login(&[target])), 0x0207, "no initiator name");
    assert_eq!(status_of(&login(&[initiator, target, "SessionType=Other"])), 0x0209);
    assert_eq!(status_of(&login(&[initiator, target]).set8(3, 1)), 0x0205, "version");
    assert_eq!(status_of(&login(&[initiator, target]).set8(15, 9)), 0x020a, "TSIH");
    assert_eq!(status_of(&login(&[initiator, target]).set8(1, 0xcf)), 0x020b, "stage 3");
    assert_eq!(
        status_of(&login(&[initiator, target]).set8(1, 0x86)),
        0x0200,
        "to stage 2"
    );
    assert_eq!(
        status_of(&login(&[initiator, target]).set8(1, 0x85)),
        0x0200,
        "to itself"
    );
    assert_eq!(status_of(&login(&[initiator, target]).set8(1, 0xc7)), 0x0200, "T and C");
    assert_eq!(
        status_of(&login(&[initiator, target, "MaxBurstLength"])),
        0x0200,
        "no value"
    );
    let twice = ["InitialR2T=No", "InitialR2T=No"];
    assert_eq!(status_of(&login(&[initiator, target, twice[0], twice[1]])), 0x0200);
    assert_eq!(
        status_of(&login(&[initiator, target, "MaxRecvDataSegmentLength=12"])),
        0x0200
    );
    let chap = Host::login_pdu(0, 1, &[initiator, target, "AuthMethod=CHAP"]);
    assert_eq!(status_of(&chap), 0x0201);
    assert_eq!(
        status_of(&Pdu::new(0x01, 0x80, 1)),
        0x020b,
        "a command before the login"
    );
}

#[test]
fn a_login_cannot_change_its_names_or_go_back() {
    let [initiator, target] = names();
    let first = Host::login_pdu(0, 1, &[&initiator, &target]);
    for (second, status) in [
        (Host::login_pdu(1, 3, &[]), 0),
        (Host::login_pdu(0, 3, &[]), 0x020b),
        (Host::login_pdu(1, 3, &[]).set8(13, 99), 0x0200),
        (Host::login_pdu(1, 3, &[]).set32(16, 1), 0x0200),
        (Host::login_pdu(1, 3, &[]).set8(21, 7), 0x0200),
    ] {
        let mut host = Host::connect();
        assert_eq!(host.exchange(&first)[0].login_status(), 0);
        assert_eq!(host.exchange(&second)[0].login_status(), status);
    }
}

#[test]
fn endless_text_ends_the_login() {
    let mut host = Host::connect();
    let piece = Host::login_pdu(1, 0, &[]).with(&[b'x'; 8192]).set8(1, 0x44);
    let status = (0..20)
        .map(|_| host.exchange(&piece)[0].login_status())
        .find(|status| *status != 0);
    assert_eq!(status, Some(0x0200));
    assert!(host.session.is_over());
}

/// A discovery session; this one takes only 512 bytes at a time.
fn discovery() -> Host {
    let mut host = Host::connect();
    let lines = [&names()[0], "SessionType=Discovery", "MaxRecvDataSegmentLength=512"];
    let answers = host.exchange(&Host::login_pdu(1, 3, &lines));
    assert_eq!(answers[0].login_status(), 0);
    assert_eq!(answers[0].data, text(&["MaxRecvDataSegmentLength=262144"]));
    assert_eq!(host.session.initiator(), None);
    host
}

fn send_targets(value: &str) -> Pdu {
    let line = format!("SendTargets={value}");
    Pdu::new(0x04, 0x80, 0).set32(20, 0xffff_ffff).with(&text(&[&line]))
}

#[test]
fn discovery_lists_the_portals_of_both_controllers() {
    let mut host = discovery();
    let target = format!("TargetName={TARGET}");
    let expected = text(&[
        &target,
        "TargetAddress=10.0.0.1:3260,1",
        "TargetAddress=10.0.0.2:3260,2",
    ]);
    for value in ["All", TARGET] {
        let answers = host.command(send_targets(value));
        assert_eq!((answers[0].opcode(), answers[0].flags()), (0x24, 0x80));
        assert_eq!(answers[0].get32(20), 0xffff_ffff);
        assert_eq!(answers[0].data, expected);
    }
    assert_eq!(host.command(send_targets("iqn.2026-11.example:other"))[0].data, []);
    let answers = host.command(Pdu::command(0, 0x40, 36, &[0x12, 0, 0, 0, 36, 0], &[]));
    assert_eq!(
        (answers[0].opcode(), answers[0].header[2]),
        (0x3f, 4),
        "no SCSI in discovery"
    );
}

#[test]
fn a_long_list_comes_in_pieces() {
    let mut host = discovery();
    host.array.view.portals[1] = (0..40).map(|n| format!("10.0.1.{n}:3260")).collect();
    let mut request = send_targets("All");
    let mut list = Vec::new();
    let pieces = loop {
        let answers = host.command(request);
        list.extend_from_slice(&answers[0].data);
        if answers[0].flags() == 0x80 {
            break host.task_tag - 0x100;
        }
        assert_eq!((answers[0].flags(), answers[0].data.len()), (0x40, 512));
        assert_ne!(answers[0].get32(20), 0xffff_ffff);
        request = Pdu::new(0x04, 0x80, 0).set32(20, answers[0].get32(20));
    };
    assert!(list.ends_with(b"TargetAddress=10.0.1.39:3260,2\0"));
    assert_eq!(pieces as usize, list.len().div_ceil(512));
}

#[test]
fn while_a_long_list_comes_nothing_else_is_asked_for() {
    let more = |ttt, flags| send_targets("All").set32(20, ttt).set8(1, flags);
    for flags in [0x80, 0x40] {
        let mut host = discovery();
        host.array.view.portals[1] = (0..40).map(|n| format!("10.0.1.{n}:3260")).collect();
        let piece = host.command(send_targets("All")).remove(0);
        assert_eq!((piece.flags(), piece.data.len()), (0x40, 512));
        let answers = host.command(more(piece.get32(20), flags));
        assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x3f, 4), "{flags:x}");
        let next = host.command(Pdu::new(0x04, 0x80, 0).set32(20, piece.get32(20)));
        assert_eq!((next[0].opcode(), next[0].header[2]), (0x3f, 4), "the exchange is over");
        assert_eq!(host.command(send_targets("All"))[0].data, piece.data, "another begins");
    }
}

#[test]
fn a_list_is_asked_for_once_in_a_request() {
    let mut host = discovery();
    let twice = Pdu::new(0x04, 0x80, 0).set32(20, 0xffff_ffff);
    let answers = host.command(twice.with(&text(&["SendTargets=All", "SendTargets=All"])));
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x3f, 9));
    assert!(!host.session.is_over());
}

#[test]
fn text_in_a_normal_session() {
    let mut host = Host::login(&[]);
    assert!(host.command(send_targets(""))[0].data.starts_with(b"TargetName="));
    assert_eq!(host.command(send_targets("All"))[0].data, text(&["SendTargets=Reject"]));
    let lines = ["MaxRecvDataSegmentLength=4096", "MaxBurstLength=512", "X-y=1"];
    let answers = host.command(Pdu::new(0x04, 0x80, 0).set32(20, 0xffff_ffff).with(&text(&lines)));
    assert_eq!(answers[0].data, text(&["MaxBurstLength=Reject", "X-y=NotUnderstood"]));
    let read = host.command(Pdu::command(0, 0x40, 8192, &[0x28, 0, 0, 0, 0, 0, 0, 0, 16, 0], &[]));
    assert_eq!(read.iter().map(|pdu| pdu.data.len()).collect::<Vec<_>>(), [4096, 4096]);
    let stray = host.command(Pdu::new(0x04, 0x80, 0).set32(20, 77));
    assert_eq!((stray[0].opcode(), stray[0].header[2]), (0x3f, 4));
}

#[test]
fn logout() {
    let mut host = Host::login(&[]);
    let recovery = host.command(Pdu::new(0x06, 0x82, 0));
    assert_eq!((recovery[0].opcode(), recovery[0].header[2]), (0x26, 2));
    assert!(!host.session.is_over());
    let answers = host.command(Pdu::new(0x06, 0x80, 0));
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x26, 0));
    assert!(host.session.is_over());
}

#[test]
fn digests_are_in_force_after_the_login() {
    let mut host = Host::login(&["HeaderDigest=CRC32C", "DataDigest=CRC32C"]);
    assert_eq!(host.data_of(0, &[0x12, 0, 0, 0, 5, 0]), [0, 0, 6, 0x12, 91]);
}

#[test]
fn a_second_login_is_a_violation() {
    let mut host = Host::login(&[]);
    let answers = host.exchange(&Host::login_pdu(1, 3, &[]));
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x3f, 4));
    assert!(host.session.is_over());
}
