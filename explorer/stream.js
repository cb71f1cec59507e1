// Answers come in a stream, which gradio's server ends when none is due. It may then be asked for another before the page
// has heard of the end, and the page would not look for that answer: what was clicked last would do nothing. So while
// any answer is due, the page is not told of the end, and its stream goes on with what the server sends next.
{
  const END = 'data: {"msg": "close_stream"}';
  const plainly = window.fetch, due = new Set(), encoder = new TextEncoder(); // due: ids of events without an answer
  let asking = 0; // requests on their way, each of which makes an answer due

  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = '', read = await reader.read(); !read.done; read = await reader.read()) {
      const parts = (text + read.value).split('\n\n');
      text = parts.pop();
      yield* parts;
    }
  }

  /** The answers of a stream, and of those that follow it. */
  const lasting = (request, first) => new ReadableStream({
    async start(page) {
      const tell = (event) => page.enqueue(encoder.encode(`${event}\n\n`));
      try {
        for (let stream = first, goesOn = true; goesOn; stream = goesOn && (await plainly(...request))) {
          goesOn = false;
          for await (const event of events(stream.body)) {
            const { msg, event_id } = JSON.parse(event.slice('data:'.length));
            if (msg === 'process_completed') due.delete(event_id);
            goesOn = msg === 'close_stream' && (asking > 0 || due.size > 0);
            if (!goesOn) tell(event);
            if (msg === 'close_stream') break;
          }
        }
        page.close();
      } catch (error) { // the connection is broken: gradio tells those that wait for an answer and, without any, nobody
        if (due.size) return page.error(error);
        tell(END);
        page.close();
      } finally {
        due.clear();
      }
    },
  });

  window.fetch = async (...request) => {
    const path = String(request[0].url ?? request[0]).split('?')[0];
    if (path.endsWith('/queue/join')) {
      asking += 1;
      try {
        const answer = await plainly(...request);
        if (answer.ok) due.add((await answer.clone().json()).event_id);
        return answer;
      } finally {
        asking -= 1;
      }
    }
    const answer = await plainly(...request);
    if (!path.endsWith('/queue/data') || !answer.ok) return answer;
    return new Response(lasting(request, answer), { headers: answer.headers });
  };
}
