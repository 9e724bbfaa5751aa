use super::*;

const OWN: OrgId = OrgId(Uuid::from_u128(1));

fn place(seq: i64, line: u8) -> Place {
    Place { seq, hash: [line; 32] }
}

fn checkpoint(place: Place, previous: Option<Place>) -> Checkpoint {
    Checkpoint { organization: OWN, place, at: clock::now(), previous }
}

fn step(witness: &mut Witness, kind: &str, checkpoint: Checkpoint) -> Step {
    let envelope = proto::Envelope { kind: kind.to_owned(), ..proto::Envelope::default() };
    witness.accept(OWN, kind, checkpoint, signed(&envelope, &checkpoint))
}

/// Whether there is an alarm since.
fn take(witness: &mut Witness, checkpoint: Checkpoint) -> bool {
    step(witness, KIND, checkpoint) == Step::Alarm
}

/// One that remembers the checkpoints of the entries 10, 20, 30 and 40.
fn witness() -> (tempfile::TempDir, Witness) {
    let folder = tempfile::tempdir().unwrap();
    let mut witness = Witness::open(folder.path());
    let mut before = None;
    for seq in [10, 20, 30, 40] {
        assert!(!take(&mut witness, checkpoint(place(seq, 1), before)));
        before = Some(place(seq, 1));
    }
    (folder, witness)
}

#[test]
fn what_fits_is_remembered_also_by_the_next_process() {
    let (folder, mut witness) = witness();
    assert!(!take(&mut witness, checkpoint(place(40, 1), Some(place(30, 1)))));
    // It was away, and misses some; the controller is an older one, and shows no links.
    assert!(!take(&mut witness, checkpoint(place(90, 3), Some(place(70, 3)))));
    let again = Witness::open(folder.path());
    assert_eq!(
        again.memory.places,
        [10, 20, 30, 40].map(|seq| place(seq, 1)).into_iter().chain([place(90, 3)]).collect::<Vec<_>>()
    );
    assert!(again.alarm.is_none());
    assert_eq!(shown(folder.path()).newest_seq, Some(90));
}

#[test]
fn only_so_many_are_remembered() {
    let (_folder, mut witness) = witness();
    for seq in 41..200 {
        assert!(!take(&mut witness, checkpoint(place(seq, 1), Some(place(seq - 1, 1)))));
    }
    assert_eq!(witness.memory.places.len(), PLACES);
}

#[test]
fn what_contradicts_raises_an_alarm() {
    for (seen, previous) in [
        // The same number with another hash, now or before.
        (place(40, 2), Some(place(30, 1))),
        (place(20, 2), Some(place(10, 1))),
        // A newer one that the newest is not before.
        (place(50, 2), Some(place(30, 1))),
        (place(50, 2), Some(place(40, 2))),
        (place(50, 2), None),
    ] {
        let (folder, mut witness) = witness();
        assert!(take(&mut witness, checkpoint(seen, previous)), "{seen:?} {previous:?}");
        let alarm = witness.alarm().unwrap().clone();
        assert_eq!((alarm.remembered.seq, alarm.seen.seq), (40, seen.seq));
        // It stands, also for the next process, whatever comes.
        assert!(!take(&mut witness, checkpoint(place(50, 1), Some(place(40, 1)))));
        let mut again = Witness::open(folder.path());
        assert_eq!(again.alarm().unwrap().id, alarm.id);
        assert!(!again.was_forgotten());
        assert_eq!(forget(folder.path()).unwrap().unwrap().id, alarm.id);
        assert!(again.was_forgotten());
        assert!(!take(&mut again, checkpoint(seen, previous)));
        assert!(shown(folder.path()).alarm.is_none());
        assert_eq!(shown(folder.path()).newest_seq, Some(seen.seq));
    }
}

#[test]
fn an_older_one_may_come_but_not_stay() {
    // One of which nobody has heard too: this agent may have been away then.
    for (seq, line) in [(30, 1), (10, 1), (25, 2)] {
        let (_folder, mut witness) = witness();
        assert!(!take(&mut witness, checkpoint(place(seq, line), Some(place(seq - 10, 1)))));
        let now = Instant::now();
        assert_eq!(witness.tick(now), Step::Nothing);
        // A newer one comes in time.
        assert!(!take(&mut witness, checkpoint(place(40, 1), Some(place(30, 1)))));
        assert_eq!(witness.tick(now + BEHIND_FOR * 2), Step::Nothing);
        assert!(!take(&mut witness, checkpoint(place(seq, line), Some(place(seq - 10, 1)))));
        assert_eq!(witness.tick(Instant::now() + BEHIND_FOR), Step::Alarm);
        assert_eq!(witness.alarm().unwrap().seen.seq, seq);
        assert_eq!(witness.tick(Instant::now() + BEHIND_FOR * 2), Step::Nothing);
    }
}

/// As [`witness`], in a session with a controller that shows links, where one came that does not name the newest.
fn unlinked() -> (tempfile::TempDir, Witness) {
    let (folder, mut witness) = witness();
    witness.begin(true);
    assert_eq!(step(&mut witness, KIND, checkpoint(place(90, 1), Some(place(80, 1)))), Step::Ask(40));
    assert_eq!(shown(folder.path()).newest_seq, Some(40));
    (folder, witness)
}

#[test]
fn what_was_missed_is_believed_once_it_is_shown_to_follow() {
    let (folder, mut witness) = unlinked();
    // Another one comes before the answer does, which is of the one before; it is asked again.
    assert_eq!(step(&mut witness, KIND, checkpoint(place(95, 1), Some(place(90, 1)))), Step::Nothing);
    let link = checkpoint(place(90, 1), Some(place(40, 1)));
    assert_eq!(step(&mut witness, LINK, link), Step::Nothing);
    assert_eq!(shown(folder.path()).newest_seq, Some(40));
    assert_eq!(witness.tick(Instant::now()), Step::Nothing);
    assert_eq!(witness.tick(Instant::now() + ASK_EVERY), Step::Ask(40));
    // An answer to another question.
    let other = checkpoint(place(95, 1), Some(place(30, 1)));
    assert_eq!(step(&mut witness, LINK, other), Step::Nothing);
    let link = checkpoint(place(95, 1), Some(place(40, 1)));
    assert_eq!(step(&mut witness, LINK, link), Step::Nothing);
    assert_eq!(shown(folder.path()).newest_seq, Some(95));
    assert_eq!(witness.tick(Instant::now() + UNLINKED_FOR), Step::Nothing);
    // What nobody asked for says nothing.
    let stray = checkpoint(place(95, 2), Some(place(40, 2)));
    assert_eq!(step(&mut witness, LINK, stray), Step::Nothing);
}

#[test]
fn a_rewrite_while_it_was_away_raises_an_alarm() {
    for link in [checkpoint(place(90, 1), Some(place(40, 2))), checkpoint(place(90, 2), Some(place(40, 1)))] {
        let (folder, mut witness) = unlinked();
        assert_eq!(step(&mut witness, LINK, link), Step::Alarm);
        let alarm = Witness::open(folder.path()).alarm().unwrap().frame();
        assert_eq!((alarm.seen.unwrap().kind, alarm.kind), (LINK.to_owned(), String::new()));
    }
}

#[test]
fn where_nothing_is_shown_that_is_told_and_it_goes_on() {
    let (folder, mut witness) = unlinked();
    assert_eq!(witness.tick(Instant::now()), Step::Nothing);
    let Step::Gap(gap) = witness.tick(Instant::now() + UNLINKED_FOR) else { panic!("it is told") };
    assert_eq!((gap.kind.as_str(), gap.id.len()), (GAP, 16));
    assert!(witness.alarm().is_none());
    assert_eq!(shown(folder.path()).newest_seq, Some(90));
    assert_eq!(witness.tick(Instant::now() + UNLINKED_FOR * 2), Step::Nothing);
    // A new session asks anew.
    let (_folder, mut witness) = unlinked();
    witness.begin(true);
    assert_eq!(witness.tick(Instant::now() + UNLINKED_FOR), Step::Nothing);
    assert_eq!(step(&mut witness, KIND, checkpoint(place(90, 1), Some(place(80, 1)))), Step::Ask(40));
}

#[test]
fn what_is_of_another_organization_counts_for_nothing() {
    let (_folder, mut witness) = witness();
    let other = Checkpoint { organization: OrgId(Uuid::nil()), ..checkpoint(place(40, 2), None) };
    assert!(!take(&mut witness, other));
    assert!(witness.alarm().is_none());
}

#[test]
fn what_nobody_signed_does_not_count() {
    let now = clock::now();
    let authority = pki::Authority::create("lab.example", now).unwrap().authority;
    let other = pki::Authority::create("lab.example", now).unwrap().authority;
    let key = pki::DispatchKey::generate();
    let hour = jiff::SignedDuration::from_hours(1);
    let controller = model::id::ControllerId(Uuid::from_u128(7));
    let certificate = authority.issue_dispatch(controller, &key, now - hour, now + hour).unwrap();
    let signer = pki::Signer::new(key, certificate);
    let sent = envelope(KIND, &checkpoint(place(1, 1), None).sign(&signer));
    let minute = Duration::from_secs(60);
    let read = |ca: &[u8], sent: &proto::Envelope| read_checkpoint(ca, "lab.example", sent, now, minute);
    assert_eq!(read(authority.controllers_ca_der(), &sent).unwrap().place, place(1, 1));
    assert!(read(other.controllers_ca_der(), &sent).is_err());
    // Of a key that is out of use, though it says that it was signed in time.
    let later = now + hour * 2;
    assert!(read_checkpoint(authority.controllers_ca_der(), "lab.example", &sent, later, minute).is_err());
    // What one witness was answered is no checkpoint, and the other way.
    let link = Checkpoint { at: now, ..checkpoint(place(2, 1), Some(place(1, 1))) }.sign_as(LINK, &signer);
    assert!(read(authority.controllers_ca_der(), &envelope(LINK, &link)).is_ok());
    assert!(read(authority.controllers_ca_der(), &envelope(KIND, &link)).is_err());
    let mut order = sent.clone();
    order.kind = "work-order".to_owned();
    assert!(read(authority.controllers_ca_der(), &order).is_err());
    let mut forged = sent;
    forged.payload =
        String::from_utf8(forged.payload).unwrap().replace("\"seq\":1", "\"seq\":2").into_bytes();
    assert!(read(authority.controllers_ca_der(), &forged).is_err());
}
