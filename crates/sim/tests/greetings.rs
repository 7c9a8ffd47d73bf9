//! What a hello comes to, on the first path and on others.

use twincell_core::ids::{ConnectionId, Controller, Epoch, Incarnation, Nanos, ProcessId, Time, Uuid};
use twincell_core::link::frame::Hello;
use twincell_core::link::{Greeting, Link};
use twincell_sim::trace;

/// This controller's instance.
const OWN: Uuid = Uuid(4);
const NOW: Time = Time(1);

/// The first hello of a partner that has been in four incarnations before.
fn first() -> Hello {
    Hello {
        controller: Controller::B,
        cell: Uuid(1),
        instance: Uuid(2),
        process: ProcessId::default(),
        incarnation: Incarnation(4),
        session: Incarnation(0),
        met: Uuid::NIL,
        epoch: Epoch(1),
        image: Uuid(3),
        undecided: false,
        buffers: 64,
    }
}

/// A link that both have said hello on, on path 0: incarnation 5. On path 1 a connection was opened, and this controller has
/// said hello.
fn established() -> Link {
    let mut link = Link::new(Nanos::from_millis(200), 64);
    link.opened(0, ConnectionId(10), NOW);
    link.unsaid();
    assert_eq!(link.greet(ConnectionId(10), first(), OWN, NOW), Greeting::Joined);
    link.opened(1, ConnectionId(11), NOW);
    let (connection, own) = link.unsaid().expect("the second");
    assert_eq!((connection, own.session), (ConnectionId(11), Incarnation(5)));
    link
}

/// What this hello on path 1 comes to.
fn on_a_second_path(hello: Hello) -> Greeting {
    established().greet(ConnectionId(11), hello, OWN, NOW)
}

/// The hello of a partner that goes on with this incarnation.
fn goes_on(session: u32, met: Uuid) -> Hello {
    Hello {
        session: Incarnation(session),
        incarnation: Incarnation(session),
        met,
        ..first()
    }
}

/// The partner said it before it had heard of the incarnation that goes on, or knows it.
#[test]
fn a_second_path_of_the_same_joins() {
    assert_eq!(on_a_second_path(first()), Greeting::Joined);
    assert_eq!(on_a_second_path(goes_on(5, OWN)), Greeting::Joined);
}

#[test]
fn another_incarnation_does_not_join() {
    assert_eq!(on_a_second_path(goes_on(4, OWN)), Greeting::Refused);
    assert_eq!(on_a_second_path(goes_on(6, OWN)), Greeting::Refused);
}

/// Another process says hello, or one that was in this incarnation and goes on with none.
#[test]
fn who_has_lost_the_incarnation_ends_it() {
    let other = Hello {
        instance: Uuid(20),
        ..first()
    };
    assert_eq!(on_a_second_path(other), Greeting::Void);
    for incarnation in [5, 6].map(Incarnation) {
        let lost = Hello { incarnation, ..first() };
        assert_eq!(on_a_second_path(lost), Greeting::Void);
    }
}

/// Who says hello on a second path as if for the first time, and has another record or image than when it was met, or does not know
/// how its ballot ends, is not the one that was met: what follows from its first hello does not follow from this one.
#[test]
fn who_has_moved_on_ends_it() {
    trace(&["goes-on-with-who-moved-on"], || {
        let moved_on = [
            Hello {
                epoch: Epoch(2),
                ..first()
            },
            Hello {
                image: Uuid(30),
                ..first()
            },
            Hello {
                undecided: true,
                ..first()
            },
        ];
        for hello in moved_on {
            assert_eq!(on_a_second_path(hello), Greeting::Void, "{hello:?}");
        }
    });
}

#[test]
fn a_connection_is_greeted_once_and_only_if_it_is_there() {
    let mut link = established();
    assert_eq!(link.greet(ConnectionId(10), first(), OWN, NOW), Greeting::Refused);
    assert_eq!(link.greet(ConnectionId(12), first(), OWN, NOW), Greeting::Refused);
}

/// Who begins anew is met only in an incarnation that never was; who says that one goes on must have met this instance in it.
#[test]
fn the_first_incarnation_is_a_new_one() {
    let greeted = |hello: Hello| {
        let mut link = Link::new(Nanos::from_millis(200), 64);
        link.opened(0, ConnectionId(10), NOW);
        link.unsaid();
        let greeting = link.greet(ConnectionId(10), hello, OWN, NOW);
        (greeting, link.is_up())
    };
    assert_eq!(greeted(first()), (Greeting::Joined, true));
    assert_eq!(greeted(goes_on(5, OWN)), (Greeting::Joined, true));
    assert_eq!(greeted(goes_on(5, Uuid(40))), (Greeting::Refused, false));
    let last = Hello {
        incarnation: Incarnation(u32::MAX),
        ..first()
    };
    assert_eq!(
        greeted(last).0,
        Greeting::Joined,
        "there is one more, though it is the last"
    );
}
