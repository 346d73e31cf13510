import createClient from "openapi-fetch";
import type { paths } from "./api";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const login = await client.POST("/api/auth/login", { body: { username: "admin", password: process.argv[3] } });
if (!login.data) throw new Error(JSON.stringify(login.error));
const status = await client.GET("/api/cluster/status", { headers: { Authorization: `Bearer ${login.data.token}` } });
const leader: string = status.data!.leader.id;
const peers: number = status.data!.peers.length;
console.log(JSON.stringify({ leader, peers }));
