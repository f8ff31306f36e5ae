//! What breaks: watches, history, agents, stores, planes; and storms of changes.

use std::time::Duration;

use super::{Happening, World};

/// Changes of one storm.
const STORM: usize = 200;

impl World {
    /// Something breaks.
    pub(super) fn fault(&mut self) {
        let number = self.chance.place(self.nodes.len());
        let shard = self.nodes[number].shard;
        let now = self.now;
        match self.chance.below(9) {
            0..=2 if self.etcds[shard].is_watched_by(number) => {
                self.faults.lost_watches += 1;
                self.etcds[shard].unwatch(number);
                // It is noticed later: what was on its way is lost.
                let node = &mut self.nodes[number];
                node.connection += 1;
                let connection = node.connection;
                let at = now + self.chance.within(Duration::from_secs(2));
                self.agenda.push(at, Happening::Broken(number, connection));
            }
            3 | 4 if self.etcds[shard].kept() > 0 => {
                self.faults.compactions += 1;
                self.etcds[shard].compact();
            }
            5 if self.nodes[number].is_up => {
                self.faults.restarts += 1;
                self.etcds[shard].unwatch(number);
                let node = &mut self.nodes[number];
                node.gateway.kill();
                node.removed.clear();
                node.is_up = false;
                node.life += 1;
                node.connection += 1;
                let life = node.life;
                let at = now + self.chance.within(Duration::from_secs(40));
                self.agenda.push(at, Happening::Start(number, life));
            }
            6 if !self.etcds[shard].away => self.leave(shard),
            7 => {
                self.faults.storms += 1;
                let group = self.chance.place(self.setup.groups);
                for _ in 0..STORM {
                    self.change(group);
                }
            }
            8 => {
                self.faults.plane_failures += 1;
                self.nodes[number].plane_fails = true;
            }
            _ => {}
        }
    }

    /// A store is away for a while, and everybody who watches it notices.
    fn leave(&mut self, shard: usize) {
        self.faults.absences += 1;
        self.etcds[shard].go();
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            if node.shard != shard || !node.is_up {
                continue;
            }
            node.connection += 1;
            let connection = node.connection;
            self.soon(Happening::Broken(number, connection));
        }
        let away = self.chance.within(Duration::from_secs(20));
        self.agenda.push(self.now + away, Happening::Back(shard));
    }
}
