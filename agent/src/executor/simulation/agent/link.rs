//! The link: what it keeps in its spool, and what it carries between the session and the executor.

use proto::report::Body;

use super::{ToExecutor, ToLink, is_final, is_same, key_of};
use crate::executor::simulation::{Down, Mutant, Up, World};

impl World {
    pub(in crate::executor::simulation) fn link_step(&mut self) {
        match self.rng.u8(0..4) {
            0 => self.intake(),
            1 => self.spool_flushes(),
            2 => self.send_report(),
            _ => {
                let link = &mut self.agent.link;
                if link.session.is_none() && !link.is_opening {
                    link.is_opening = true;
                    link.to_executor.push_back(ToExecutor::Inventory);
                }
            }
        }
    }

    fn intake(&mut self) {
        let agent = &mut self.agent;
        let mut report = match agent.executor.outbox.pop_front() {
            Some(ToLink::Report(report)) => report,
            Some(ToLink::Ended(key, report)) => {
                agent.link.ended.insert(key);
                report
            }
            None => return,
        };
        if !agent.link.reports.values().any(|(known, _)| is_same(known, &report)) {
            agent.last_seq += 1;
            report.seq = agent.last_seq;
            agent.link.reports.insert(report.seq, (report, false));
        }
    }

    pub(super) fn spool_flushes(&mut self) {
        let agent = &mut self.agent;
        for (_, is_durable) in agent.link.reports.values_mut() {
            *is_durable = true;
        }
        agent.spool = agent.link.reports.iter().map(|(seq, (report, _))| (*seq, report.clone())).collect();
    }

    fn send_report(&mut self) {
        let early = self.has(Mutant::SettlesEarly);
        let link = &mut self.agent.link;
        let Some(at) = link.session.filter(|_| link.is_welcome) else { return };
        let next = link.reports.iter().find(|(seq, _)| !link.sent.contains(seq));
        let Some((seq, (report, _))) = next.filter(|(_, (report, durable))| *durable || !is_final(report))
        else {
            return;
        };
        link.sent.insert(*seq);
        let (seq, report) = (*seq, report.clone());
        if early && matches!(report.body, Some(Body::Finished(_))) {
            link.reports.remove(&seq);
            link.to_executor.push_back(ToExecutor::Settled(key_of(&report)));
            self.witness.handed_over.insert(key_of(&report));
        }
        self.sessions[at].up.push_back(Up::Report(report));
    }

    pub(in crate::executor::simulation) fn deliver_down(&mut self) {
        self.hear_of_ends();
        let Some(at) = self.agent.link.session else { return };
        let Some(message) = self.sessions[at].down.pop_front() else { return };
        let link = &mut self.agent.link;
        match message {
            Down::Welcome => link.is_welcome = true,
            Down::Order(order) => link.to_executor.push_back(ToExecutor::Order(order)),
            Down::Cancel(key) => link.to_executor.push_back(ToExecutor::Cancel(key)),
            Down::Ack(seq) => {
                if !link.sent.remove(&seq) {
                    return;
                }
                let Some((report, _)) = link.reports.remove(&seq) else { return };
                let key = key_of(&report);
                match report.body {
                    Some(Body::Accepted(_) | Body::Started(_)) | None => {}
                    Some(Body::Refused(_)) => link.to_executor.push_back(ToExecutor::Settled(key)),
                    Some(Body::Finished(_) | Body::Lost(_)) => {
                        if matches!(report.body, Some(Body::Finished(_))) {
                            self.witness.handed_over.insert(key);
                        }
                        // Its output is taken for shipped.
                        if link.ended.remove(&key) {
                            link.to_executor.push_back(ToExecutor::Settled(key));
                        }
                    }
                }
            }
        }
    }
}
