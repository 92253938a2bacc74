/** For the tests of failpoints: three workers come to one at the same time, and say when they are past it. */
async function work(number: number): Promise<void> {
  await Promise.resolve();
  // failpoint: here
  process.stdout.write(`${number} `);
}

await Promise.all([0, 1, 2].map(work));
// failpoint (sync): end
process.stdout.write("end\n");
