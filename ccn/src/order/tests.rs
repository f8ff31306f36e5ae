//! Laws of the order of change, on random histories against a model kernel and model peers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bgp::Prefix;
use proptest::prelude::*;

use super::*;
use crate::plane::entry::{Hop, ScopeId};
use crate::record::{Mac, Mode, Vni};

const DRAIN: Duration = Duration::from_millis(500);

type Entries = BTreeMap<EntryKey, EntryValue>;
type Announcements = BTreeMap<Prefix, BTreeSet<LinkId>>;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

/// Which VPCs exist, how each is linked, and what subnets it has.
#[derive(Debug, Clone, Default)]
struct World {
    vpcs: BTreeMap<u8, Vpc>,
}

#[derive(Debug, Clone, Default)]
struct Vpc {
    subnets: Subnets,
    /// Links, each with a number of classic prefixes.
    links: BTreeMap<u8, u8>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Subnets {
    #[default]
    One,
    Two,
    /// One with the addresses of both.
    Wide,
}

impl World {
    fn plan(&self) -> (Entries, Announcements) {
        let mut entries = Entries::new();
        let mut announcements = Announcements::new();
        for (number, vpc) in &self.vpcs {
            let vni = vni(u32::from(*number) + 100);
            let scope = ScopeId(vni);
            let [first, second, wide] =
                ["0.0/24", "1.0/24", "0.0/23"].map(|rest| prefix(&format!("10.{number}.{rest}")));
            let subnets = match vpc.subnets {
                Subnets::One => vec![first],
                Subnets::Two => vec![first, second],
                Subnets::Wide => vec![wide],
            };
            let hop = Hop {
                vtep: "172.16.0.11".parse().unwrap(),
                mac: "02:00:00:00:00:11".parse::<Mac>().unwrap(),
                weight: 1,
            };
            entries.insert(
                EntryKey::Endpoint {
                    scope,
                    addr: format!("10.{number}.0.5").parse().unwrap(),
                },
                EntryValue::Endpoint {
                    vni,
                    hops: vec![hop],
                },
            );
            for subnet in subnets {
                entries.insert(
                    EntryKey::Source { vni, subnet },
                    EntryValue::Source { scope },
                );
                for (link, classics) in &vpc.links {
                    let link: LinkId = format!("link-{number}-{link}").parse().unwrap();
                    for classic in 0..=*classics {
                        let classic = prefix(&format!("192.168.{classic}.0/24"));
                        entries.insert(
                            EntryKey::Permit {
                                link: link.clone(),
                                vni,
                                subnet,
                                classic,
                            },
                            EntryValue::Permit {
                                scope,
                                mode: Mode::Both,
                                dscp: None,
                            },
                        );
                    }
                    announcements.entry(subnet).or_default().insert(link);
                }
            }
        }
        (entries, announcements)
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Vpc(u8, Subnets),
    NoVpc(u8),
    Link(u8, u8, u8),
    Unlink(u8, u8),
    /// The plane answers what is outstanding; these entries (by turn) it refuses.
    Answer {
        refuse: Option<u8>,
    },
    Fail,
    /// The peers have the oldest withdrawal.
    Flush,
    Wait(u16),
    Audit,
    /// So much may be announced.
    May(Announcing),
}

fn subnets() -> impl Strategy<Value = Subnets> {
    prop_oneof![Just(Subnets::One), Just(Subnets::Two), Just(Subnets::Wide)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3u8, subnets()).prop_map(|(v, s)| Step::Vpc(v, s)),
        1 => (0..3u8).prop_map(Step::NoVpc),
        4 => (0..3u8, 0..2u8, 0..2u8).prop_map(|(v, l, c)| Step::Link(v, l, c)),
        4 => (0..3u8, 0..2u8).prop_map(|(v, l)| Step::Unlink(v, l)),
        8 => proptest::option::weighted(0.1, any::<u8>()).prop_map(|refuse| Step::Answer { refuse }),
        1 => Just(Step::Fail),
        4 => Just(Step::Flush),
        4 => (0..800u16).prop_map(Step::Wait),
        1 => Just(Step::Audit),
        1 => Just(Step::May(Announcing::Everything)),
        1 => Just(Step::May(Announcing::NothingNew)),
        1 => Just(Step::May(Announcing::Nothing)),
    ]
}

/// A step of a gateway whose plane takes everything, and whose only link keeps its VPC.
fn change_of_subnets() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => subnets().prop_map(|s| Step::Vpc(1, s)),
        1 => (0..2u8).prop_map(|c| Step::Link(1, 0, c)),
        4 => Just(Step::Answer { refuse: None }),
        4 => Just(Step::Flush),
        2 => (0..800u16).prop_map(Step::Wait),
        1 => Just(Step::Audit),
    ]
}

/// Order, with a kernel and peers that are models.
struct Lab {
    order: Order,
    now: Instant,
    world: World,
    planned: (Entries, Announcements),
    generation: u64,
    kernel: Entries,
    announced: BTreeSet<Prefix>,
    /// When each prefix stopped being announced to somebody, as far as the peers know.
    withdrawn: BTreeMap<Prefix, Option<Instant>>,
    /// What the peers are waited for: what is withdrawn with it, and what is announced by then.
    waits: VecDeque<(WithdrawalId, BTreeSet<Prefix>, BTreeSet<Prefix>)>,
    /// What the peers are known to have.
    told: BTreeSet<Prefix>,
    announcing: Announcing,
    /// The order that is not answered, and what the kernel holds when it is done.
    outstanding: Option<(Output, Entries)>,
}

impl Lab {
    fn new() -> Lab {
        let now = Instant::now();
        Lab {
            order: Order::new(DRAIN, now),
            now,
            world: World::default(),
            planned: Default::default(),
            generation: 0,
            kernel: Entries::new(),
            announced: BTreeSet::new(),
            withdrawn: BTreeMap::new(),
            waits: VecDeque::new(),
            told: BTreeSet::new(),
            announcing: Announcing::Everything,
            outstanding: None,
        }
    }

    fn replan(&mut self) {
        let (entries, announcements) = self.world.plan();
        let (old_entries, old_announcements) =
            std::mem::replace(&mut self.planned, (entries.clone(), announcements.clone()));
        self.generation += 1;
        let mut delta = Delta {
            generation: self.generation,
            ..Delta::default()
        };
        for (key, value) in &entries {
            if old_entries.get(key) != Some(value) {
                delta.upserts.insert(key.clone(), value.clone());
            }
        }
        for (key, value) in old_entries {
            if !entries.contains_key(&key) {
                delta.removals.insert(key, value);
            }
        }
        for (prefix, links) in &announcements {
            if old_announcements.get(prefix) != Some(links) {
                delta.announcements.insert(*prefix, links.clone());
            }
        }
        for prefix in old_announcements.into_keys() {
            if !announcements.contains_key(&prefix) {
                delta.announcements.insert(prefix, BTreeSet::new());
            }
        }
        self.order.planned(delta);
    }

    /// Forwarding for the prefix is whole for at least one link.
    fn forwards(&self, prefix: &Prefix) -> bool {
        self.kernel.keys().any(|key| {
            matches!(key, EntryKey::Permit { subnet, vni, .. } if subnet == prefix
                && self.kernel.contains_key(&EntryKey::Source { vni: *vni, subnet: *subnet }))
        })
    }

    fn poll(&mut self) {
        while let Some(output) = self.order.poll(self.now) {
            match output {
                Output::Announce(prefixes) => {
                    assert_eq!(self.announcing, Announcing::Everything, "{prefixes:?}");
                    for prefix in prefixes {
                        assert!(
                            self.forwards(&prefix),
                            "{prefix} announced without forwarding"
                        );
                        self.withdrawn.remove(&prefix);
                        assert!(self.announced.insert(prefix), "{prefix} announced twice");
                    }
                }
                Output::Withdraw(id, prefixes) => {
                    for prefix in &prefixes {
                        assert!(
                            self.announced.remove(prefix),
                            "{prefix} withdrawn, not announced"
                        );
                        self.withdrawn.insert(*prefix, None);
                        self.told.remove(prefix);
                    }
                    self.waits.push_back((id, prefixes, self.announced.clone()));
                }
                Output::Flush(id) => {
                    let announced = self.announced.clone();
                    self.waits.push_back((id, BTreeSet::new(), announced));
                }
                Output::Apply(_) | Output::Resync => {
                    assert!(self.outstanding.is_none(), "two orders at a time");
                    let after = self.after(&output);
                    self.check_removals(&after);
                    self.outstanding = Some((output, after));
                }
            }
        }
    }

    /// What is to be removed protects no announcement, and no traffic that still drains.
    fn check_removals(&self, after: &Entries) {
        for key in self.kernel.keys().filter(|key| !after.contains_key(key)) {
            let EntryKey::Permit { subnet, .. } = key else {
                continue;
            };
            let others = after
                .keys()
                .any(|key| matches!(key, EntryKey::Permit { subnet: s, .. } if s == subnet));
            if others {
                continue;
            }
            assert!(
                !self.announced.contains(subnet),
                "{key} removed while {subnet} is announced"
            );
            match self.withdrawn.get(subnet) {
                None => {}
                Some(Some(at)) => assert!(*at + DRAIN <= self.now, "{key} removed while draining"),
                Some(None) => panic!("{key} removed before the peers have the withdrawal"),
            }
        }
    }

    fn after(&self, output: &Output) -> Entries {
        match output {
            Output::Apply(batch) => {
                let mut after = self.kernel.clone();
                after.retain(|key, _| !batch.removals.contains(key));
                after.extend(batch.upserts.clone());
                after
            }
            _ => {
                let mut desired = self.planned.0.clone();
                desired.extend(self.order.held().map(|(k, v)| (k.clone(), v.clone())));
                desired
            }
        }
    }

    fn answer(&mut self, refuse: Option<u8>) {
        let Some((output, mut after)) = self.outstanding.take() else {
            return;
        };
        let upserts: Vec<EntryKey> = match &output {
            Output::Apply(batch) => batch.upserts.keys().cloned().collect(),
            _ => after.keys().cloned().collect(),
        };
        let mut failures = BTreeMap::new();
        if let Some(turn) = refuse
            && !upserts.is_empty()
        {
            let key = upserts[usize::from(turn) % upserts.len()].clone();
            after.remove(&key);
            failures.insert(key, "the table is full".to_owned());
        }
        let generation = match &output {
            Output::Apply(batch) => batch.generation,
            _ => self.generation,
        };
        self.kernel = after;
        self.order.applied(
            &Applied {
                generation,
                failures,
                ..Applied::default()
            },
            self.now,
        );
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Vpc(vpc, subnets) => {
                self.world.vpcs.entry(vpc).or_default().subnets = subnets;
                self.replan();
            }
            Step::NoVpc(vpc) => {
                self.world.vpcs.remove(&vpc);
                self.replan();
            }
            Step::Link(vpc, link, classics) => {
                self.world
                    .vpcs
                    .entry(vpc)
                    .or_default()
                    .links
                    .insert(link, classics);
                self.replan();
            }
            Step::Unlink(vpc, link) => {
                if let Some(vpc) = self.world.vpcs.get_mut(&vpc) {
                    vpc.links.remove(&link);
                }
                self.replan();
            }
            Step::Answer { refuse } => self.answer(refuse),
            Step::Fail => {
                if self.outstanding.take().is_some() {
                    self.order.plane_failed(self.now);
                }
            }
            Step::Flush => {
                if let Some((id, prefixes, announced)) = self.waits.pop_front() {
                    self.told.extend(announced.intersection(&self.announced));
                    for prefix in prefixes {
                        if let Some(at) = self.withdrawn.get_mut(&prefix) {
                            *at = Some(self.now);
                        }
                    }
                    self.order.flushed(id, self.now);
                }
            }
            Step::Wait(ms) => self.now += Duration::from_millis(ms.into()),
            Step::Audit => self.order.resync(self.now),
            Step::May(announcing) => {
                self.announcing = announcing;
                self.order.set_announcing(announcing);
            }
        }
        self.poll();
    }

    /// Lets everything that is on its way come to an end.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.run(Step::Flush);
            self.run(Step::Answer { refuse: None });
            if self.order.is_settled() && self.outstanding.is_none() {
                return;
            }
            if self.outstanding.is_none()
                && let Some(at) = self.order.next_timeout()
            {
                self.now = self.now.max(at);
                self.poll();
            }
        }
        panic!("does not settle: {:#?}", self.order);
    }

    fn check_settled(&self) {
        let (entries, announcements) = &self.planned;
        assert_eq!(&self.kernel, entries, "the kernel has what is planned");
        let (wanted, phase) = match self.announcing {
            Announcing::Everything => (
                announcements.keys().copied().collect(),
                LinkPhase::Announced,
            ),
            Announcing::NothingNew | Announcing::Nothing => (BTreeSet::new(), LinkPhase::Drained),
        };
        assert_eq!(self.announced, wanted, "what is planned is announced");
        assert_eq!(self.order.announced().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(self.order.acknowledged(), self.generation);
        assert_eq!(self.order.held().count(), 0);
        for (number, vpc) in &self.world.vpcs {
            for link in vpc.links.keys() {
                let link: LinkId = format!("link-{number}-{link}").parse().unwrap();
                assert_eq!(self.order.link(&link), Some(phase.clone()), "{link}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn never_announced_without_forwarding_and_always_settles(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut lab = Lab::new();
        lab.poll();
        for step in steps {
            lab.run(step);
        }
        // A drained gateway holds what it would announce.
        lab.run(Step::May(Announcing::Nothing));
        lab.settle();
        lab.run(Step::Audit);
        lab.settle();
        lab.check_settled();
        lab.run(Step::May(Announcing::Everything));
        lab.settle();
        // What was refused is taken by the audit that follows.
        lab.run(Step::Audit);
        lab.settle();
        lab.check_settled();
        lab.world.vpcs.values_mut().for_each(|vpc| vpc.links.clear());
        lab.replan();
        lab.poll();
        lab.settle();
        lab.check_settled();
        prop_assert!(lab.announced.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_peers_always_know_a_way_to_what_stays_linked(
        steps in proptest::collection::vec(change_of_subnets(), 1..60)
    ) {
        let mut lab = linked();
        lab.run(Step::Answer { refuse: None });
        lab.run(Step::Answer { refuse: None });
        lab.told = lab.announced.clone();
        let address = "10.1.0.5".parse().unwrap();
        let knows = |lab: &Lab| lab.told.iter().any(|prefix| prefix.contains_addr(address));
        prop_assert!(knows(&lab), "{:?}", lab.announced);
        for step in steps {
            lab.run(step.clone());
            prop_assert!(knows(&lab), "after {step:?}: {:?} of {:?}", lab.told, lab.announced);
        }
        lab.settle();
        lab.check_settled();
    }
}

fn linked() -> Lab {
    let mut lab = Lab::new();
    lab.poll();
    lab.run(Step::Answer { refuse: None });
    lab.run(Step::Link(1, 0, 0));
    lab
}

fn link() -> LinkId {
    "link-1-0".parse().unwrap()
}

#[test]
fn a_link_is_announced_only_when_the_plane_has_verified_it() {
    let mut lab = linked();
    assert_eq!(lab.order.link(&link()), Some(LinkPhase::Pending));
    assert!(lab.announced.is_empty());
    let (Output::Apply(batch), _) = lab.outstanding.clone().unwrap() else {
        panic!("no batch")
    };
    assert!(batch.verify, "what an announcement rests on is read back");
    lab.run(Step::Answer { refuse: None });
    assert_eq!(lab.order.link(&link()), Some(LinkPhase::Announced));
    assert_eq!(lab.announced, [prefix("10.1.0.0/24")].into());
}

#[test]
fn a_link_that_the_plane_refuses_is_failed_and_never_announced() {
    let lab = linked();
    let (Output::Apply(batch), _) = lab.outstanding.clone().unwrap() else {
        panic!("no batch")
    };
    for turn in 0..batch.upserts.len() {
        let mut lab = linked();
        lab.run(Step::Answer {
            refuse: Some(u8::try_from(turn).unwrap()),
        });
        let refused = batch.upserts.keys().nth(turn).unwrap();
        if matches!(refused, EntryKey::Endpoint { .. }) {
            // One VM that does not fit takes no subnet down.
            assert_eq!(lab.order.link(&link()), Some(LinkPhase::Announced));
            continue;
        }
        assert!(lab.announced.is_empty(), "{refused}");
        let reason = "the table is full".to_owned();
        assert_eq!(
            lab.order.link(&link()),
            Some(LinkPhase::Failed(reason)),
            "{refused}"
        );
    }
}

#[test]
fn what_is_lost_beside_a_batch_is_judged_anew() {
    let mut lab = linked();
    lab.run(Step::Answer { refuse: None });
    let subnet = prefix("10.1.0.0/24");
    assert_eq!(lab.announced, [subnet].into());
    lab.order.look();
    lab.poll();
    let Some((Output::Apply(batch), _)) = lab.outstanding.take() else {
        panic!("a look is a batch")
    };
    assert!(batch.verify && batch.upserts.is_empty(), "{batch:?}");
    let (lost, _) = lab.kernel.iter().next().expect("entries");
    let applied = Applied {
        generation: batch.generation,
        failures: BTreeMap::from([(lost.clone(), "it is gone".to_owned())]),
        ..Applied::default()
    };
    lab.order.applied(&applied, lab.now);
    assert_eq!(lab.order.poll(lab.now), Some(Output::Resync));
}

#[test]
fn forwarding_outlives_the_withdrawal_by_the_drain() {
    let mut lab = linked();
    lab.run(Step::Answer { refuse: None });
    lab.run(Step::Unlink(1, 0));
    assert!(lab.announced.is_empty(), "withdrawn at once");
    assert_eq!(lab.order.link(&link()), Some(LinkPhase::Removing));
    lab.run(Step::Wait(10_000));
    lab.run(Step::Answer { refuse: None });
    assert!(
        lab.forwards(&prefix("10.1.0.0/24")),
        "the peers may not have it yet"
    );
    lab.run(Step::Flush);
    lab.run(Step::Wait(499));
    lab.run(Step::Answer { refuse: None });
    assert!(
        lab.forwards(&prefix("10.1.0.0/24")),
        "traffic may be on its way"
    );
    assert_eq!(
        lab.order.next_timeout(),
        Some(lab.now + Duration::from_millis(1))
    );
    lab.run(Step::Wait(1));
    assert_eq!(
        lab.order.link(&link()),
        Some(LinkPhase::Removing),
        "not acknowledged yet"
    );
    lab.run(Step::Answer { refuse: None });
    assert!(!lab.forwards(&prefix("10.1.0.0/24")));
    assert_eq!(lab.order.link(&link()), None);
}

#[test]
fn what_is_drained_stays_in_the_plane_and_is_announced_again() {
    let mut lab = linked();
    lab.run(Step::Answer { refuse: None });
    let subnet = prefix("10.1.0.0/24");
    lab.run(Step::May(Announcing::NothingNew));
    assert_eq!(lab.announced, [subnet].into(), "nothing is withdrawn yet");
    assert_eq!(lab.order.link(&link()), Some(LinkPhase::Announced));
    lab.run(Step::Link(2, 0, 0));
    lab.run(Step::Answer { refuse: None });
    assert_eq!(lab.announced, [subnet].into(), "and nothing announced");
    lab.run(Step::May(Announcing::Nothing));
    assert!(lab.announced.is_empty());
    lab.settle();
    lab.check_settled();
    // A link that goes while nothing is announced has nothing to wait for.
    lab.run(Step::Unlink(2, 0));
    lab.run(Step::Answer { refuse: None });
    assert_eq!(lab.order.link(&"link-2-0".parse().unwrap()), None);
    lab.run(Step::May(Announcing::Everything));
    assert_eq!(lab.announced, [subnet].into());
}

#[test]
fn what_comes_back_before_the_peers_have_the_withdrawal_does_not_wait_for_it() {
    let mut lab = linked();
    lab.run(Step::Answer { refuse: None });
    lab.run(Step::May(Announcing::Nothing));
    lab.run(Step::May(Announcing::Everything));
    assert_eq!(lab.announced, [prefix("10.1.0.0/24")].into());
    lab.run(Step::Flush);
    lab.run(Step::Wait(1_000));
    lab.settle();
    lab.check_settled();
}

#[test]
fn a_link_made_again_while_it_drains_stays() {
    let mut lab = linked();
    lab.run(Step::Answer { refuse: None });
    lab.run(Step::Unlink(1, 0));
    lab.run(Step::Flush);
    lab.run(Step::Link(1, 0, 0));
    while lab.outstanding.is_some() {
        lab.run(Step::Answer { refuse: None });
    }
    assert_eq!(lab.announced, [prefix("10.1.0.0/24")].into());
    lab.run(Step::Wait(1_000));
    lab.run(Step::Answer { refuse: None });
    assert!(lab.forwards(&prefix("10.1.0.0/24")));
    assert_eq!(lab.order.link(&link()), Some(LinkPhase::Announced));
}

#[test]
fn endpoints_of_a_plan_that_is_new_as_a_whole_are_not_taken_away_by_an_old_withdrawal() {
    let mut lab = linked();
    lab.run(Step::Answer { refuse: None });
    let (entries, announcements) = lab.planned.clone();
    let is_endpoint = |key: &EntryKey| matches!(key, EntryKey::Endpoint { .. });
    lab.run(Step::NoVpc(1));
    assert!(lab.order.held().any(|(key, _)| is_endpoint(key)));
    lab.run(Step::Answer { refuse: None });
    let mut upserts = entries.clone();
    upserts.retain(|key, _| !is_endpoint(key));
    lab.generation += 1;
    lab.planned = (entries.clone(), announcements.clone());
    lab.order.planned(Delta {
        generation: lab.generation,
        whole: true,
        upserts,
        announcements,
        ..Delta::default()
    });
    lab.order.resync(lab.now);
    lab.poll();
    lab.run(Step::Answer { refuse: None });
    lab.run(Step::Flush);
    lab.run(Step::Wait(1_000));
    while lab.outstanding.is_some() {
        lab.run(Step::Answer { refuse: None });
    }
    assert_eq!(lab.kernel, entries);
    assert_eq!(lab.announced, [prefix("10.1.0.0/24")].into());
}

#[test]
fn a_plane_that_keeps_failing_is_asked_less_and_less_often() {
    let mut lab = Lab::new();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        lab.poll();
        assert_eq!(
            lab.outstanding.as_ref().map(|o| &o.0),
            Some(&Output::Resync)
        );
        lab.outstanding = None;
        lab.order.plane_failed(lab.now);
        let at = lab.order.next_timeout().unwrap();
        pauses.push((at - lab.now).as_millis());
        lab.now = at;
    }
    assert_eq!(
        pauses,
        [
            200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
        ]
    );
}

#[test]
fn a_removal_that_the_kernel_refuses_is_not_acknowledged() {
    let mut lab = linked();
    lab.run(Step::Answer { refuse: None });
    lab.run(Step::Unlink(1, 0));
    lab.run(Step::Answer { refuse: None });
    lab.run(Step::Flush);
    lab.run(Step::Wait(500));
    let (Output::Apply(batch), _) = lab.outstanding.take().unwrap() else {
        panic!("no batch")
    };
    let stuck = batch.removals.first().unwrap().clone();
    let applied = Applied {
        generation: batch.generation,
        failures: [(stuck, "device or resource busy".to_owned())].into(),
        ..Applied::default()
    };
    lab.order.applied(&applied, lab.now);
    lab.poll();
    assert_eq!(lab.order.link(&link()), Some(LinkPhase::Removing));
    assert!(!lab.order.is_settled());
    lab.settle();
    assert_eq!(lab.order.link(&link()), None);
    lab.check_settled();
}
