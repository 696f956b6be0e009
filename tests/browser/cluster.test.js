/** 2 API and 2 worker processes over RabbitMQ and MongoDB; consecutive requests of one client alternate between the APIs. */

import { failures } from './failures.js';
import { scenarios } from './scenarios.js';

scenarios('cluster');
failures('cluster');
