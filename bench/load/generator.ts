import type { Stage } from '../stage/stage.ts';
import type { Answer, Plan, StreamResult } from './plan.ts';

export type Generator = {
  /** Runs a plan to its end. @throws when the generator could not */
  run(plan: Plan): Promise<StreamResult[]>;
};

export async function startGenerator(stage: Stage): Promise<Generator> {
  const pending = new Map<number, { resolve(answer: Answer): void }>();
  const child = await stage.startChild(new URL('./main.ts', import.meta.url), {
    onMessage(message) {
      const answer = message as Answer;
      pending.get(answer.id)?.resolve(answer);
      pending.delete(answer.id);
    },
  });
  let ids = 0;
  return {
    async run(plan) {
      const id = ids++;
      const answered = new Promise<Answer>((resolve) => {
        pending.set(id, { resolve });
      });
      child.send({ id, plan });
      const answer = await stage.whileRunning(answered, child);
      if ('problem' in answer) throw new Error(`the load generator: ${answer.problem}`);
      return answer.results;
    },
  };
}
