// A receiver as somebody would write it with the `standardwebhooks` and `@octokit/webhooks-methods` of npm. What it takes
// and answers is that of receiver.py, and the same for the signature over the body alone. Prints where it listens.

import { createServer } from "node:http";
import { sign, verify, verifyWithFallback } from "@octokit/webhooks-methods";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const secrets = {};

function standardHolds(secret, body, headers) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

async function verified(hook, body, headers) {
  const [standard, text] = ["standard", "text"].map((form) => secrets[hook].map((secret) => secret[form]));
  const signature = headers["x-hub-signature-256"];
  const tampered = `${body.slice(0, -1)} ${body.slice(-1)}`;
  const found = {
    standard: standard.map((secret) => standardHolds(secret, body, headers)),
    hub: await Promise.all(text.map((secret) => verify(secret, body, signature))),
    tampered:
      standardHolds(standard[0], tampered, headers) || (await verifyWithFallback(text[0], tampered, signature, text)),
  };
  const hubHolds = await verifyWithFallback(text[0], body, signature, text.slice(1));
  return [found.standard[0] && hubHolds && !found.tampered ? 200 : 401, found];
}

async function signed({ secret, id, body }) {
  const now = new Date();
  return {
    standard: {
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(now / 1000)),
      "webhook-signature": new Webhook(secret).sign(id, now, body),
    },
    hub: { "x-hub-signature-256": await sign(secret, body) },
  };
}

async function answer(path, headers, body) {
  if (path.startsWith("/hook/")) return verified(path.slice("/hook/".length), body, headers);
  const told = JSON.parse(body);
  if (path !== "/secrets") return [200, await signed(told)];
  secrets[told.hook] = told.secrets;
  return [200, {}];
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const [status, value] = await answer(request.url, request.headers, Buffer.concat(chunks).toString());
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
