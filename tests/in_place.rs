//! Machines that go back in place: every way leads to the state that a fresh restore has, bit for bit, and no
//! page that changed is missing from a freeze. Under KVM alone: emulation restarts instead.

use std::fs::File;

use vmrepl_machine::{GuestMemory, Machine, Mark, Restored};
use vmrepl_snapshots::SnapshotId;

use crate::books::{self, Pages, Watched};
use crate::chance::Random;
use crate::ground::count;
use crate::lanes::{is_kvm, tell};
use crate::layers::{Ground, Live, as_a_session};

/// A place in the tree of a walk.
#[derive(Clone)]
struct Place {
    mark: Mark,
    id: SnapshotId,
    /// What the cell there says.
    steps: Vec<u32>,
    pages: Pages,
}

struct Walk<'a> {
    ground: &'a Ground,
    base: File,
    live: Live,
    /// From the restore to where the machine stands.
    way: Vec<Place>,
    generation: u64,
    surplus: usize,
    frozen: usize,
}

impl<'a> Walk<'a> {
    fn new(ground: &'a Ground) -> Self {
        let base = File::open(&ground.hardware.memory_file).unwrap();
        let live = ground.restore(&ground.base, 10);
        let start = Place {
            mark: Mark::RESTORED,
            id: ground.base,
            steps: Vec::new(),
            pages: Pages::new(),
        };
        Self {
            ground,
            base,
            live,
            way: vec![start],
            generation: 10,
            surplus: 0,
            frozen: 0,
        }
    }

    fn here(&self) -> &Place {
        self.way.last().unwrap()
    }

    /// Runs a cell and freezes what it left.
    fn step(&mut self, number: u32) {
        let mut steps = self.here().steps.clone();
        steps.push(number);
        let code = format!("steps = globals().get('steps', []) + [{number}]\nsteps");
        assert_eq!(self.live.value(&code), format!("{steps:?}"));
        self.freeze(steps);
    }

    fn freeze(&mut self, steps: Vec<u32>) {
        self.live.quiesce();
        let before = self.here().pages.clone();
        let parent = self.here().id;
        let memory = self.outside();
        let watched = books::freeze(&mut self.live.machine, &memory, &self.base, &before);
        let Watched {
            frozen,
            changed,
            surplus,
        } = watched;
        self.surplus += surplus;
        self.frozen += changed.len();
        let mut draft = self.ground.store.layer_draft(&parent).unwrap();
        draft.section("machine", 1, &frozen.state).unwrap();
        let over = changed.iter().map(|(index, page)| (*index, &**page));
        let id = draft.publish(over).unwrap();
        self.live.wake();
        let mut pages = before;
        pages.extend(changed);
        self.way.push(Place {
            mark: frozen.mark.unwrap(),
            id,
            steps,
            pages,
        });
    }

    fn outside(&self) -> GuestMemory {
        self.ground.outside(&self.live.machine)
    }

    /// Goes back and compares with a fresh restore of the same place, both before their first instruction.
    fn go_back(&mut self, to: usize) {
        let place = self.way[to].clone();
        let own = self.outside();
        let mut paused = self.live.machine.pause().unwrap();
        paused.roll_back(place.mark).unwrap();
        let here = (paused.save_state().unwrap(), paused.sum().unwrap());
        let (state, pages) = self.ground.read(&place.id);
        let over = pages.iter().map(|(index, page)| (*index, &**page));
        let fresh = Machine::restore_at_rest(
            &self.ground.engine,
            None,
            &self.ground.hardware,
            &as_a_session(&state),
            over,
        );
        let Restored {
            machine: mut fresh,
            streams: _streams,
        } = fresh.unwrap();
        let other = self.ground.outside(&fresh);
        let mut fresh = fresh.pause().unwrap();
        let there = (fresh.save_state().unwrap(), fresh.sum().unwrap());
        if here.1 != there.1 {
            let told = format!(
                "{}; {:?}; {:?}",
                apart(&own, &other),
                paused.condition(),
                fresh.condition()
            );
            panic!("memory differs at {:?}: {told}", place.steps);
        }
        let differences: Vec<usize> = (0..here.0.len().max(there.0.len()))
            .filter(|at| here.0.get(*at) != there.0.get(*at))
            .collect();
        assert!(
            differences.is_empty(),
            "the state differs at {:?}: bytes {differences:?}",
            place.steps
        );
        drop(fresh);
        drop(paused);
        self.way.truncate(to + 1);
        self.generation += 1;
        self.live.resumed(self.generation);
        assert_eq!(
            self.live.value("globals().get('steps', [])"),
            format!("{:?}", place.steps)
        );
        // What was only looked at is no part of the place.
        self.live.quiesce();
        let mut paused = self.live.machine.pause().unwrap();
        paused.roll_back(place.mark).unwrap();
        drop(paused);
        self.generation += 1;
        self.live.resumed(self.generation);
    }

    /// Restores a place in a second machine, which goes its own way.
    fn fork(&mut self, at: usize) {
        let place = &self.way[at];
        let mut child = self.ground.restore(&place.id, self.generation + 100);
        let code = "steps = globals().get('steps', []) + [-1]\nsteps[:-1]";
        assert_eq!(child.value(code), format!("{:?}", place.steps));
    }
}

/// Where two memories differ: page, offset, and the bytes from there on.
fn apart(one: &GuestMemory, other: &GuestMemory) -> String {
    let (mut a, mut b) = ([0; 4096], [0; 4096]);
    let mut told = Vec::new();
    for index in 0..one.bytes() / 4096 {
        one.read(index, &mut a).unwrap();
        other.read(index, &mut b).unwrap();
        if let Some(at) = (0..4096).find(|at| a[*at] != b[*at]) {
            let end = (at + 16).min(4096);
            told.push(format!(
                "{index}+{at}: {:x?} {:x?}",
                &a[at..end],
                &b[at..end]
            ));
        }
    }
    told.join("; ")
}

fn walk(ground: &Ground, seed: u64, steps: usize) {
    let mut chance = Random(seed);
    let mut below = |limit: usize| usize::try_from(chance.below(limit as u64)).unwrap();
    let mut walk = Walk::new(ground);
    for number in 0..steps {
        let upto = walk.way.len();
        match below(10) {
            0..=5 => walk.step(u32::try_from(number).unwrap()),
            6..=8 => walk.go_back(below(upto)),
            _ => walk.fork(below(upto)),
        }
    }
    tell(&format!(
        "walk {seed}: {} pages frozen, of which {} had not changed",
        walk.frozen, walk.surplus
    ));
}

#[test]
fn every_way_back_is_a_fresh_restore() {
    if !is_kvm("the way back in place") {
        return;
    }
    let ground = Ground::small();
    for seed in 0..count(1, 50) as u64 {
        walk(&ground, seed, 20);
    }
}

#[test]
fn a_first_way_back() {
    if !is_kvm("the way back in place") {
        return;
    }
    let ground = Ground::new();
    let mut walk = Walk::new(&ground);
    walk.step(1);
    walk.step(2);
    walk.go_back(1);
    walk.step(3);
    walk.go_back(0);
    walk.fork(0);
}

#[test]
#[ignore = "an emulated host may stand still with it"]
fn two_processors_go_back() {
    if !is_kvm("the way back in place") {
        return;
    }
    let ground = Ground::two_processors();
    let mut walk = Walk::new(&ground);
    assert_eq!(walk.live.value("import os\nos.cpu_count()"), "2");
    walk.freeze(Vec::new());
    for number in 1..=3 {
        walk.step(number);
        walk.go_back(1);
        walk.step(number + 10);
    }
    walk.go_back(2);
    walk.fork(1);
}
