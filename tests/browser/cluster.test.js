/** 2 API and 2 worker processes over RabbitMQ and MongoDB; consecutive requests of one client alternate between the APIs. */

import { admin } from './admin.js';
import { chat } from './chat.js';
import { failures } from './failures.js';
import { rooms } from './rooms.js';

rooms('cluster');
failures('cluster');
chat('cluster');
admin('cluster');
