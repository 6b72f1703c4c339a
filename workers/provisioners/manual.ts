import type { ApplyOutcome, Assignment, Provisioner } from '../../core/provisioner.ts';

// A person makes it real. What is to be done shows as a dead letter at once, whose cause says how to
// end it; nothing is ever tried again by itself.

/** What a person does, and with which command it is said to be done. */
const waits = {
  create: 'waits for an operator: dead-letter resolve --delivered',
  change: 'waits for an operator: change it by hand, then dead-letter resolve',
  freeze: 'waits for an operator: block its use by hand, then dead-letter resolve',
  release: 'waits for an operator: take it away by hand, then dead-letter resolve',
};

export function createManualProvisioner(): Provisioner {
  return {
    target: 'an operator',
    apply: async (assignment) => decide(assignment),
  };
}

function decide({ desired, changes }: Assignment): ApplyOutcome {
  // Put once more, or what an operator took out again: a person has nothing to do.
  if (changes.length === 0) return { kind: 'applied' };
  const isMade = changes.every(({ kind }) => kind !== 'created');
  // Nobody said that it was delivered, so there is nothing that a person must be sent to take away.
  if (!desired.exists) return isMade ? wait('release') : { kind: 'applied' };
  if (!isMade) return wait('create');
  return wait(desired.frozen && changes.at(-1)?.kind === 'frozen' ? 'freeze' : 'change');
}

function wait(forWhat: keyof typeof waits): ApplyOutcome {
  return { kind: 'failed', failure: { class: 'permanent', cause: waits[forWhat] } };
}
