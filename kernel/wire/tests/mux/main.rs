//! The multiplexer: two real ends, every chunking, every order, hostile bytes.

mod foreign;
mod pair;
mod rules;

use pair::{CLOSED_PORT, Pair};
use proptest::prelude::*;
use vmrepl_wire::mux::{MuxError, Role};

#[derive(Debug, Clone)]
enum Action {
    Open {
        role: Role,
        port: u32,
    },
    Send {
        role: Role,
        pick: usize,
        length: usize,
    },
    Consume {
        role: Role,
        pick: usize,
        length: usize,
    },
    Finish {
        role: Role,
        pick: usize,
    },
    Reset {
        role: Role,
        pick: usize,
    },
    Close {
        role: Role,
        pick: usize,
    },
    Transmit {
        role: Role,
        length: usize,
    },
    Arrive {
        role: Role,
        length: usize,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let role = || prop_oneof![Just(Role::Host), Just(Role::Guest)];
    let port = prop_oneof![Just(9), Just(10_000), Just(1024), Just(CLOSED_PORT)];
    let length = || prop_oneof![0..40_usize, 0..5_000_usize, 0..300_000_usize];
    let pick = || 0..64_usize;
    prop_oneof![
        2 => (role(), port).prop_map(|(role, port)| Action::Open { role, port }),
        6 => (role(), pick(), length())
            .prop_map(|(role, pick, length)| Action::Send { role, pick, length }),
        4 => (role(), pick(), length())
            .prop_map(|(role, pick, length)| Action::Consume { role, pick, length }),
        1 => (role(), pick()).prop_map(|(role, pick)| Action::Finish { role, pick }),
        1 => (role(), pick()).prop_map(|(role, pick)| Action::Reset { role, pick }),
        1 => (role(), pick()).prop_map(|(role, pick)| Action::Close { role, pick }),
        6 => (role(), length()).prop_map(|(role, length)| Action::Transmit { role, length }),
        6 => (role(), length()).prop_map(|(role, length)| Action::Arrive { role, length }),
    ]
}

fn act(pair: &mut Pair, action: &Action) -> Result<(), MuxError> {
    match *action {
        Action::Open { role, port } => {
            // The guest may not speak before it was greeted.
            if pair.end(role).mux.epoch() > 0 {
                pair.end(role).open(port)?;
            }
        }
        Action::Send { role, pick, length } => {
            if let Some(id) = pair.end(role).nth(pick) {
                pair.end(role).send(id, length);
            }
        }
        Action::Consume { role, pick, length } => {
            if let Some(id) = pair.end(role).nth(pick) {
                pair.end(role).consume(id, length);
            }
        }
        Action::Finish { role, pick } => {
            if let Some(id) = pair.end(role).nth(pick) {
                pair.end(role).finish(id);
            }
        }
        Action::Close { role, pick } => {
            if let Some(id) = pair.end(role).nth(pick) {
                pair.end(role).close(id);
            }
        }
        Action::Reset { role, pick } => {
            if let Some(id) = pair.end(role).nth(pick) {
                pair.end(role).reset(id);
            }
        }
        Action::Transmit { role, length } => pair.transmit(role, length),
        Action::Arrive { role, length } => pair.end(role).arrive(length)?,
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_byte_arrives_once_and_in_order(actions in prop::collection::vec(action(), 0..120)) {
        let mut pair = Pair::new();
        for action in &actions {
            act(&mut pair, action).map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
        pair.settle();
        pair.check();
        prop_assert_eq!(&pair.host.epochs, &[1]);
        prop_assert_eq!(&pair.guest.epochs, &[1]);
    }

    #[test]
    fn a_new_epoch_drops_what_was_under_way(
        before in prop::collection::vec(action(), 0..60),
        stale in prop::collection::vec(action(), 0..30),
        after in prop::collection::vec(action(), 0..60),
    ) {
        let mut pair = Pair::ready();
        for action in &before {
            act(&mut pair, action).map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
        pair.move_all();
        // From here nobody reads at the host: what the guest says is stale when the next host comes.
        for action in &stale {
            if !matches!(action, Action::Arrive { role: Role::Host, .. }) {
                act(&mut pair, action).map_err(|error| TestCaseError::fail(error.to_string()))?;
            }
        }
        let unread = pair.guest.inbox.len();
        pair.guest.arrive(unread).map_err(|error| TestCaseError::fail(error.to_string()))?;
        pair.restart_host(2);
        for action in &after {
            act(&mut pair, action).map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
        pair.settle();
        pair.check();
        prop_assert_eq!(&pair.host.epochs, &[2]);
        prop_assert_eq!(&pair.guest.epochs, &[1, 2]);
    }
}
