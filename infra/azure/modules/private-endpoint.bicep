// A private endpoint of one resource, and its entry in the private DNS zone.

@description('Name of the endpoint.')
param name string

@description('Azure region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Resource id of the subnet for private endpoints.')
param subnetId string

@description('Resource id of what the endpoint leads to.')
param targetId string

@description('Part of it: blob, table, vault, namespace, sites.')
param groupId string

@description('Name of the private DNS zone in this resource group; empty where a central team makes the entry.')
param zoneName string

resource endpoint 'Microsoft.Network/privateEndpoints@2024-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    customNetworkInterfaceName: '${name}-interface'
    privateLinkServiceConnections: [
      {
        name: groupId
        properties: {
          privateLinkServiceId: targetId
          groupIds: [groupId]
        }
      }
    ]
  }
}

resource zoneEntry 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-05-01' = if (!empty(zoneName)) {
  parent: endpoint
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [
      {
        name: groupId
        properties: {
          privateDnsZoneId: resourceId('Microsoft.Network/privateDnsZones', zoneName)
        }
      }
    ]
  }
}
